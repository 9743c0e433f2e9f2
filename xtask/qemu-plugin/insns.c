/*
 * A QEMU plugin that counts the guest's executed instructions and, when the guest exits, writes the count to a file:
 *
 *     qemu-aarch64 -plugin insns.so,out=FILE PROGRAM …
 *
 * `cargo xtask insns` compiles and uses it. Distributions do not package qemu-plugin.h, so the few functions used are
 * declared here; they are the same in version 1 (QEMU 4.2 to 8) and version 2 (QEMU 9 and later) of the interface,
 * and QEMU_PLUGIN_API is the version to announce. The count is not synchronised between the guest's threads: the
 * program to be counted must run in one.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS = 0 };

typedef void (*tb_translated)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*tb_executed)(unsigned int vcpu, void *user);
typedef void (*guest_exited)(qemu_plugin_id_t id, void *user);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_translated cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, tb_executed cb,
                                          enum qemu_plugin_cb_flags flags, void *user);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, guest_exited cb, void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);

int qemu_plugin_version = QEMU_PLUGIN_API;

static uint64_t executed;
static char out_path[4096];

static void on_executed(unsigned int vcpu, void *user)
{
    (void)vcpu;
    executed += (uintptr_t)user;
}

/* A translation block runs from its first instruction to its last, so one addition counts all of them. */
static void on_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_executed, QEMU_PLUGIN_CB_NO_REGS,
                                         (void *)(uintptr_t)qemu_plugin_tb_n_insns(tb));
}

static void on_exit(qemu_plugin_id_t id, void *user)
{
    (void)id;
    (void)user;
    FILE *out = fopen(out_path, "w");
    if (out == NULL || fprintf(out, "%" PRIu64 "\n", executed) < 0 || fclose(out) != 0) {
        perror(out_path);
    }
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof out_path) {
        fprintf(stderr, "insns: usage: -plugin insns.so,out=FILE\n");
        return -1;
    }
    strcpy(out_path, argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
