/* cpu_backend.h - the CPU's op table. */
#ifndef GRADREG_LIB_CPU_BACKEND_H
#define GRADREG_LIB_CPU_BACKEND_H

#include "../backend.h"

extern const gr_backend_ops gradreg_cpu_backend;

#endif
