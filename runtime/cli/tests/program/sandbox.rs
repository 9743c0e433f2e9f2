//! A folder of its own for every test, and the program run in it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use vitlet_plan::testing::tiny_plan;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_vitlet");

/// A folder that is removed afterwards, with the tiny plan in it as `tiny.vitlet`.
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// What a run printed, and how it ended.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let sandbox = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        // Another user must be able to look into it, too.
        sandbox.restrict(".", 0o755);
        sandbox.write("tiny.vitlet", &tiny_plan(1));
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A PNG of noise.
    pub(crate) fn photo(&self, name: &str, seed: u32) {
        let (width, height) = (24 + seed % 5, 20 + seed % 7);
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let pixels: Vec<u8> = (0..width * height * 3).map(|_| noise()).collect();
        self.png(name, [width, height], &pixels);
    }

    /// A square PNG of the colours of its pixels.
    #[cfg(feature = "compiler")]
    pub(crate) fn rgb(&self, name: &str, side: u32, colour: impl Fn(usize) -> [u8; 3]) {
        let pixels = (0..(side * side) as usize).flat_map(colour);
        self.png(name, [side, side], &pixels.collect::<Vec<u8>>());
    }

    pub(crate) fn png(&self, name: &str, [width, height]: [u32; 2], pixels: &[u8]) {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(pixels).unwrap();
        writer.finish().unwrap();
        self.write(name, &bytes);
    }

    pub(crate) fn restrict(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The names in a folder, hidden ones too, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs the program here; arguments are separated by spaces.
    pub(crate) fn run(&self, arguments: &str) -> Ran {
        self.finish(self.command(PROGRAM).args(arguments.split_whitespace()))
    }

    /// Runs the program with these bytes as its standard input.
    pub(crate) fn run_piped(&self, input: &[u8], arguments: &str) -> Ran {
        let mut child = self.start(arguments);
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // The program may end before it has read all.
            scope.spawn(move || stdin.write_all(input));
            Ran::from(child.wait_with_output().unwrap())
        })
    }

    /// Starts the program, with pipes to all its ends.
    pub(crate) fn start(&self, arguments: &str) -> Child {
        let mut command = self.command(PROGRAM);
        command
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// As [`run`](Self::run), with a variable in the environment.
    pub(crate) fn run_with(&self, variable: (&str, &str), arguments: &str) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(arguments.split_whitespace());
        self.finish(command.env(variable.0, variable.1))
    }

    /// Runs the program with a standard output of the caller's choice.
    pub(crate) fn run_into(&self, stdout: impl Into<Stdio>, arguments: &str) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(arguments.split_whitespace()).stdout(stdout);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Runs the program where no file can have any contents: the error of a full disk, from the system's file size limit.
    pub(crate) fn run_on_full_disk(&self, arguments: &str) -> Ran {
        let mut command = self.command("bash");
        command.args(["-c", r#"ulimit -f 0; trap "" XFSZ; exec "$@""#, "bash"]);
        self.finish(command.arg(PROGRAM).args(arguments.split_whitespace()))
    }

    /// Runs the program as a user whom permissions restrict. `None` (and a line that says so) if this test runs as root and
    /// there is no `setpriv`; in CI that is a failure.
    pub(crate) fn run_restricted(&self, arguments: &str) -> Option<Ran> {
        if fs::metadata(self.folder.path()).unwrap().uid() != 0 {
            return Some(self.run(arguments));
        }
        if Command::new("setpriv").arg("--version").output().is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "no setpriv, which CI must have"
            );
            println!("not run: root, and no setpriv to become somebody else");
            return None;
        }
        // The program may lie where only root can look.
        let program = TempDir::new().unwrap();
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = program.path().join("vitlet");
        fs::copy(PROGRAM, &copy).unwrap();
        let mut command = self.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        Some(self.finish(command.arg(copy).args(arguments.split_whitespace())))
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_remove("VITLET_KERNEL");
        command
    }

    #[allow(clippy::unused_self, reason = "the sandbox must outlive the run")]
    fn finish(&self, command: &mut Command) -> Ran {
        Ran::from(command.output().unwrap())
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The run succeeded and had nothing to complain about.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!((self.status, &*self.stderr), (0, ""), "{}", self.stdout);
        self
    }

    /// The run failed with this exit status and one line on standard error that has all these parts.
    #[track_caller]
    pub(crate) fn failed(self, status: i32, parts: &[&str]) -> Self {
        let Self { stderr, stdout, .. } = &self;
        assert_eq!(self.status, status, "{stderr}{stdout}");
        assert!(stderr.starts_with("vitlet: error: "), "{stderr}");
        assert_eq!(
            stderr.find('\n'),
            Some(stderr.len() - 1),
            "not one line: {stderr}"
        );
        for part in parts {
            assert!(stderr.contains(part), "no '{part}' in: {stderr}");
        }
        self
    }

    /// Every line of standard output as a JSON object.
    #[track_caller]
    pub(crate) fn records(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The only line of standard output as a JSON object.
    #[track_caller]
    pub(crate) fn record(&self) -> Value {
        let [record] = <[Value; 1]>::try_from(self.records()).unwrap();
        record
    }
}

/// The names of an object's fields, sorted.
#[track_caller]
pub(crate) fn fields(value: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    fields
}

/// Whether a string is so many lower-case hexadecimal digits.
pub(crate) fn is_hex(value: &Value, digits: usize) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() == digits
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// A path inside this repository.
#[cfg(feature = "compiler")]
pub(crate) fn repository(path: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}
