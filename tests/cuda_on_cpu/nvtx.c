// What a profiler attaches to a program (NVTX_INJECTION64_PATH): prints the name of each range.
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>

static int range_push(const char *name)
{
    fprintf(stderr, "range %s\n", name);
    return 0;
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table)
{
    NvtxFunctionTable functions;
    unsigned count = 0;
    const NvtxExportTableCallbacks *callbacks = get_table(NVTX_ETID_CALLBACKS);
    if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &functions, &count) ||
        count <= NVTX_CBID_CORE_RangePushA)
        return 0;
    *functions[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)range_push;
    return 1;
}
