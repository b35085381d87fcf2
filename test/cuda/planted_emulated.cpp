/* planted.cu for a C++ compiler. */
#include "planted.cu"
