# What tools/demo and tools/study share; sourced by bash after tools/common.sh.
# shellcheck shell=bash disable=SC2154

study_source=$root/examples/study
study_base=$study_source/base.ckpt
study_program=$build_root/study/examples/study/study

# The order of additions in a matrix product is the processor's own, unless told otherwise: with this,
# all x86-64 with AVX2 get the same numbers.
if grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo; then
    export OPENBLAS_CORETYPE=Haswell
fi
export OPENBLAS_NUM_THREADS=1

build_study() {
    say "building"
    configure "$build_root/study" -Dbuildtype=release -Dtests=disabled -Dbenchmarks=false \
        -Ddocs=disabled -Dcuda=disabled >/dev/null
    ninja -C "$build_root/study" examples/study/study </dev/null
}

# run_study FOLDER ARM:SEEDS... [-- OPTION VALUE...]
run_study() {
    local folder=$1
    shift
    "$python" "$study_source/campaign.py" --program "$study_program" --base "$study_base" \
        --folder "$folder" --jobs "${GRADREG_STUDY_JOBS:-$(nproc)}" "$@"
}
