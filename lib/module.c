/* module.c - finds the CUDA module, once somebody asks for it.
 *
 * In: the environment variable GRADREG_CUDA_MODULE, the place of libgradreg, the system's library
 * path. Out: the module's table, or a sentence that says where it was looked for and why what was
 * found will not do. The current directory is never searched. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr, secure_getenv */
#endif
#include "module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "context.h"
#include "params.h"
#include "status.h"

#define VARIABLE  "GRADREG_CUDA_MODULE"
#define FILE_NAME "libgradreg-cuda.so"

enum { PATH_BYTES = 4096 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const gr_module
    *_Atomic loaded; /* for ever: what it made lives as long as the process */

/* ---- fork() ---------------------------------------------------------------------- */

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static int cut_off; /* the fork that made this process came within a search */

/* A child has no thread that would end another's search: it would find the mutex held for ever, and the loader's
 * work half done. It does without the module then. The parent is not made to wait instead: what is being loaded
 * may register handlers of forks itself, for which older C libraries wait until the fork is over. */
static void in_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    if (pthread_mutex_trylock(&mutex) == 0) {
        pthread_mutex_unlock(&mutex);
    } else {
        memcpy(&mutex, &fresh, sizeof(mutex));
        cut_off = atomic_load(&loaded) == NULL;
    }
}

static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

/* ---- what a module may call ------------------------------------------------------ */

static void *device_of(const gradreg_context *context)
{
    return context->device;
}

/* An entry of LD_LIBRARY_PATH that is empty or relative stands for the current directory. */
static int path_is_absolute(void)
{
    const char *at = getenv("LD_LIBRARY_PATH");
    if (at == NULL || *at == '\0')
        return 1;
    for (;;) {
        if (*at != '/')
            return 0;
        at += strcspn(at, ":;");
        if (*at++ == '\0')
            return 1;
    }
}

static const gr_core core = { gradreg_i_set_error, gradreg_i_log, gradreg_i_struct_write,
                              device_of, path_is_absolute };

/* ---- whether it fits ------------------------------------------------------------- */

static gradreg_status check(const gr_module *module, const char *path)
{
    static const uint32_t sizes[GR_MODULE_SIZES] = GR_MODULE_LAYOUT;
    if (module == NULL || module->magic != GR_MODULE_MAGIC)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED, "%s is not a module of libgradreg", path);
    if (strncmp(module->version, gradreg_version(), sizeof(module->version)) != 0)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "%s belongs to libgradreg %.27s, this is libgradreg %s: install both "
                       "from one version",
                       path, module->version, gradreg_version());
    if (memcmp(module->sizes, sizes, sizeof(sizes)) != 0)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "%s was built from other sources than this libgradreg %s: build both "
                       "together",
                       path, gradreg_version());
    return GRADREG_OK;
}

static gradreg_status take(void *library, const char *path)
{
    const gr_module *module = dlsym(library, GR_CUDA_MODULE_SYMBOL);
    const gradreg_status status = check(module, path);
    if (status != GRADREG_OK) {
        dlclose(library);
        return status;
    }
    GR_TRY(module->load(&core)); /* stays open: a runtime that has started does not end well */
    atomic_store(&loaded, module);
    return GRADREG_OK;
}

/* ---- where it is ----------------------------------------------------------------- */

static gradreg_status open_named(const char *path)
{
    GR_REQUIRE(path[0] == '/', "%s is \"%.200s\", must be an absolute path", VARIABLE, path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED, "%s: %s", VARIABLE, dlerror());
    return take(library, path);
}

/* Beside the file that holds this function: libgradreg, or the program that it is linked into. */
static void *open_beside(char *path, size_t bytes)
{
    Dl_info info;
    char *real, *slash;
    path[0] = '\0';
    if (dladdr(&core, &info) == 0 || strchr(info.dli_fname, '/') == NULL)
        return NULL;
    real = realpath(info.dli_fname, NULL);
    if (real == NULL)
        return NULL;
    slash = strrchr(real, '/');
    const int length = snprintf(path, bytes, "%.*s/" FILE_NAME, (int)(slash - real), real);
    free(real);
    return length > 0 && (size_t)length < bytes ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

/* Nowhere, or beside libgradreg in a file that cannot be loaded: `why` is what the loader said of it. */
static gradreg_status not_found(const char *path, const char *why)
{
    const char *skipped = path_is_absolute() ? ""
                                             : " (not searched: "
                                               "LD_LIBRARY_PATH has relative entries)";
    if (why[0] != '\0' && access(path, F_OK) == 0)
        return GR_FAIL(
            GRADREG_ERROR_UNSUPPORTED,
            "no CUDA module: the one beside libgradreg cannot be loaded (%.300s), and "
            "the system's library path has none%s; %s can name it",
            why, skipped, VARIABLE);
    return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                   "no CUDA module: %s is neither beside libgradreg (%.200s) nor in the "
                   "system's library path%s; %s can name it",
                   FILE_NAME, path, skipped, VARIABLE);
}

static gradreg_status search(void)
{
    char path[PATH_BYTES], why[512];
    const char *named = secure_getenv(VARIABLE);
    if (cut_off)
        return GR_FAIL(GRADREG_ERROR_UNSUPPORTED,
                       "no CUDA module: this process was forked while another thread was "
                       "loading it; fork before or after, or start anew");
    if (named != NULL && named[0] != '\0')
        return open_named(named);
    void *library = open_beside(path, sizeof(path));
    if (library != NULL)
        return take(library, path);
    const char *said = dlerror(); /* until the next look */
    (void)snprintf(why, sizeof(why), "%s", said != NULL ? said : "");
    library = path_is_absolute() ? dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library != NULL)
        return take(library, FILE_NAME);
    return not_found(path, why);
}

gradreg_status gradreg_i_device_find(const gr_device **out)
{
    gradreg_status status = GRADREG_OK;
    (void)pthread_once(&watch_once, watch_forks);
    pthread_mutex_lock(&mutex);
    if (atomic_load(&loaded) == NULL)
        status = search();
    pthread_mutex_unlock(&mutex);
    *out = status == GRADREG_OK ? &atomic_load(&loaded)->device : NULL;
    return status;
}

const gr_device *gradreg_i_device_loaded(void)
{
    const gr_module *module = atomic_load(&loaded);
    return module != NULL ? &module->device : NULL;
}
