/*
 * A QEMU plugin that counts the guest's executed instructions and, when the guest exits, writes the count to a file:
 *
 *     qemu-aarch64 -plugin insns.so,out=FILE PROGRAM …
 *
 * Before that line, the file has a line `MARK COUNT` for every mark that the guest set: `vitlet profile --marks` seeks to
 * position MARKS + MARK of a file, which no reader of a file does, and COUNT instructions had been executed by then.
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
typedef void (*system_called)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2,
                              uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
typedef void (*guest_exited)(qemu_plugin_id_t id, void *user);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_translated cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, tb_executed cb,
                                          enum qemu_plugin_cb_flags flags, void *user);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, system_called cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, guest_exited cb, void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);

int qemu_plugin_version = QEMU_PLUGIN_API;

/* The same number as in runtime/cli/src/profile.rs; below it there is room for as many marks. */
#define MARKS (UINT64_C(1) << 40)
/* The same on every 64-bit architecture that uses Linux's generic table, as aarch64 does. */
#define SYS_LSEEK 62

static uint64_t executed;
static char out_path[4096];
static FILE *out;

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

/* A system call ends its translation block, so the count is exact. */
static void on_system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2,
                           uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a1, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == SYS_LSEEK && a2 >= MARKS && a2 < 2 * MARKS) {
        fprintf(out, "%" PRIu64 " %" PRIu64 "\n", a2 - MARKS, executed);
    }
}

static void on_exit(qemu_plugin_id_t id, void *user)
{
    (void)id;
    (void)user;
    if (fprintf(out, "%" PRIu64 "\n", executed) < 0 || fclose(out) != 0) {
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
    out = fopen(out_path, "w");
    if (out == NULL) {
        perror(out_path);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
