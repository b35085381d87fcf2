/* cuda_modules.c - modules that libgradreg must refuse; compiled several times, see meson.build.
 *
 *   GR_TEST_VERSION   the version that the module claims
 *   GR_TEST_OTHER     1: a struct of another size
 *   GR_TEST_DRIVER    1: fits, but finds no driver */
#include <stdlib.h>

#include "module.h"

static const gr_core *core;

static gradreg_status load(const gr_core *given)
{
    core = given;
#ifdef GR_TEST_DRIVER
    core->set_error("no driver, says the test's module");
    return GRADREG_ERROR_UNSUPPORTED;
#else
    abort(); /* a module that does not fit must not be called */
#endif
}

extern const gr_module gradreg_cuda_module;
const gr_module gradreg_cuda_module = { .magic = GR_MODULE_MAGIC,
#ifdef GR_TEST_OTHER
                                        .sizes = { 1, 2, 3 },
#else
                                        .sizes = GR_MODULE_LAYOUT,
#endif
                                        .version = GR_TEST_VERSION,
                                        .load = load };
