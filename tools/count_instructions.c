/* A plugin of qemu-aarch64 that counts executed instructions by kind and prints the counts at exit.
 * Built and used by tools/count_instructions.sh. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of QEMU's plugin interface; its header is not in Debian's packages. */
struct block;
struct instruction;
typedef uint64_t plugin;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin, void (*)(plugin, struct block *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct block *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_atexit_cb(plugin, void (*)(plugin, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
#if VERSION < 3
const void *qemu_plugin_insn_data(const struct instruction *);
#else
size_t qemu_plugin_insn_data(const struct instruction *, void *, size_t);
#endif

__attribute__((visibility("default"))) int qemu_plugin_version = VERSION;

enum { ARITHMETIC, MEMORY, OTHER, KINDS };

struct counts {
    uint64_t kinds[KINDS];
};
static struct counts total;

static void executed(unsigned cpu, void *data)
{
    const struct counts *block = data;
    (void)cpu;
    for (int i = 0; i < KINDS; i++)
        total.kinds[i] += block->kinds[i];
}

/* Bits 28 to 25 of an instruction: x111 is vectors and floating point, x1x0 loads and stores. */
static int kind(uint32_t word)
{
    if ((word >> 25 & 7) == 7)
        return ARITHMETIC;
    return (word >> 25 & 5) == 4 ? MEMORY : OTHER;
}

static void translated(plugin id, struct block *block)
{
    struct counts *counts = calloc(1, sizeof *counts);
    (void)id;
    if (!counts)
        abort();
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
        uint32_t word;
#if VERSION < 3
        memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
#else
        qemu_plugin_insn_data(instruction, &word, sizeof word);
#endif
        counts->kinds[kind(word)]++;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, counts);
}

static void finished(plugin id, void *data)
{
    (void)id;
    (void)data;
    fprintf(stderr, "instructions %llu %llu %llu\n", (unsigned long long)total.kinds[ARITHMETIC],
            (unsigned long long)total.kinds[MEMORY], (unsigned long long)total.kinds[OTHER]);
}

__attribute__((visibility("default"))) int
qemu_plugin_install(plugin id, const void *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
