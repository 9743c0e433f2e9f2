//! Outputs: they appear whole or not at all, and nothing else is left behind.

use std::fs::{self, File};

use crate::sandbox::Sandbox;

const RUN: &str = "run -m tiny.vitlet --input 1.png --output";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.photo("1.png", 1);
    sandbox
}

#[test]
fn an_old_output_is_replaced_and_has_the_usual_rights() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = sandbox();
    sandbox.write("usual", b"");
    sandbox.write("out.npy", b"old");
    sandbox.run(&format!("{RUN} out.npy")).succeeded();
    assert!(
        fs::read(sandbox.path("out.npy"))
            .unwrap()
            .starts_with(b"\x93NUMPY")
    );
    let mode = |name: &str| {
        fs::metadata(sandbox.path(name))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("out.npy"), mode("usual"));
    assert_eq!(
        sandbox.names("."),
        ["1.png", "out.npy", "tiny.vitlet", "usual"]
    );

    // A link stays one.
    fs::create_dir(sandbox.path("far")).unwrap();
    sandbox.write("far/target.npy", b"old");
    std::os::unix::fs::symlink("far/target.npy", sandbox.path("link.npy")).unwrap();
    sandbox.run(&format!("{RUN} link.npy")).succeeded();
    assert!(sandbox.path("link.npy").is_symlink());
    assert!(
        fs::read(sandbox.path("far/target.npy"))
            .unwrap()
            .starts_with(b"\x93NUMPY")
    );
    assert_eq!(sandbox.names("far"), ["target.npy"]);
}

#[test]
fn places_where_no_output_can_be() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("folder")).unwrap();
    sandbox.run(&format!("{RUN} none/out.npy")).failed(
        2,
        &["none/out.npy: ", "none cannot be used", "No such file"],
    );
    sandbox
        .run(&format!("{RUN} folder"))
        .failed(2, &["folder: is a folder"]);
    sandbox
        .run(&format!("{RUN} 1.png/out.npy"))
        .failed(2, &["1.png/out.npy: "]);
    sandbox
        .run(&format!("{RUN} /dev/null"))
        .failed(2, &["/dev/null: is not a regular file"]);
    sandbox
        .run(&format!("{RUN} 1.png"))
        .failed(2, &["1.png: is also an input"]);
    sandbox
        .run(&format!("{RUN} folder/../tiny.vitlet"))
        .failed(2, &["tiny.vitlet: is also an input"]);
    assert_eq!(sandbox.names("."), ["1.png", "folder", "tiny.vitlet"]);
    assert!(sandbox.names("folder").is_empty());
}

#[test]
fn no_permission_to_write() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("locked")).unwrap();
    sandbox.restrict("locked", 0o555);
    let Some(ran) = sandbox.run_restricted(&format!("{RUN} locked/out.npy")) else {
        return;
    };
    ran.failed(
        2,
        &[
            "locked/out.npy: no file can be created in folder",
            "Permission denied",
        ],
    );
    assert!(sandbox.names("locked").is_empty());
}

#[test]
fn a_full_disk_leaves_nothing() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("full")).unwrap();
    let ran = sandbox.run_on_full_disk(&format!("{RUN} full/out.npy"));
    ran.failed(1, &["full/out.npy: cannot be written: File too large"]);
    assert!(sandbox.names("full").is_empty());

    // What was there before stays.
    sandbox.write("full/out.npy", b"old");
    sandbox
        .run_on_full_disk(&format!("{RUN} full/out.npy"))
        .failed(1, &["cannot be written"]);
    assert_eq!(fs::read(sandbox.path("full/out.npy")).unwrap(), b"old");
    assert_eq!(sandbox.names("full"), ["out.npy"]);
}

#[test]
fn standard_output_that_is_full_or_closed() {
    let sandbox = sandbox();
    for verb in [
        "cpu",
        "cpu --json",
        "inspect tiny.vitlet",
        "classify -m tiny.vitlet --json 1.png",
        "bench -m tiny.vitlet",
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        sandbox
            .run_into(full, verb)
            .failed(1, &["standard output: No space left"]);

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = sandbox.run_into(writer, verb);
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{verb}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(sandbox.run_into(writer, "--help").status, 0);
}
