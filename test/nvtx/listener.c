/* listener.c - in a profiler's place: notes the ranges that are pushed and popped.
 *
 * In: NVTX opens the library that NVTX_INJECTION64_PATH names. Out: listener_said(). */
#include <nvtx3/nvToolsExt.h>

#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

static char said[1024];

static void say(const char *mark, const char *name)
{
    const size_t used = strlen(said);
    (void)snprintf(said + used, sizeof(said) - used, "%s%s ", mark, name);
}

static int NVTX_API on_push(const char *name)
{
    say("+", name);
    return 0;
}

static int NVTX_API on_pop(void)
{
    say("-", "");
    return 0;
}

/* What was heard since the last call. */
EXPORT const char *listener_said(void);
const char *listener_said(void)
{
    static char told[sizeof(said)];
    memcpy(told, said, sizeof(said));
    said[0] = '\0';
    return told;
}

/* 1: the callbacks are in place. */
EXPORT int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table);
int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table)
{
    NvtxFunctionTable functions = NULL;
    unsigned size = 0;
    const NvtxExportTableCallbacks *callbacks = get_table(NVTX_ETID_CALLBACKS);
    if (callbacks == NULL ||
        !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &functions, &size) ||
        size <= NVTX_CBID_CORE_RangePop)
        return 0;
    *functions[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)on_push;
    *functions[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)on_pop;
    return 1;
}
