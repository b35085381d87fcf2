/* check_emulators.cpp - the two stand-ins for a GPU themselves: planted faults have to be caught,
 * and PTX instructions have to do what the PTX manual says.
 *
 * In: nothing. Out: exit status 0, or the expectations that failed. */
#include "emulator.h"

#include <cstdio>
#include <vector>

#include "element.h"
#include "expect.h"
#include "ptx_machine.h"

namespace
{

/* ---- kernels for the emulator --------------------------------------------------------- */

void neighbours(const unsigned *in, unsigned *out, bool with_barrier)
{
    GR_SHARED(unsigned, kept, 64);
    kept[threadIdx.x] = in[threadIdx.x];
    if (with_barrier)
        __syncthreads();
    out[threadIdx.x] = kept[(threadIdx.x + 1) % blockDim.x];
}

/* How often three schedules give the right answer. */
int right_answers(bool with_barrier)
{
    std::vector<unsigned> in(64), out(64);
    int right = 0;
    for (unsigned i = 0; i < 64; i++)
        in[i] = i * i;
    for (uint64_t schedule = 0; schedule < 3; schedule++) {
        bool same = true;
        emulator::launch(1, 64, schedule,
                         [&] { neighbours(in.data(), out.data(), with_barrier); });
        for (unsigned i = 0; i < 64; i++)
            same = same && out[i] == in[(i + 1) % 64];
        right += same;
    }
    return right;
}

void barrier_in_a_branch()
{
    if (threadIdx.x < 32)
        __syncthreads();
}

void barrier_after_some_returned()
{
    if (threadIdx.x == 5)
        return;
    __syncthreads();
}

void shuffle_after_a_lane_returned()
{
    if (threadIdx.x == 7)
        return;
    __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
}

void shuffle_outside_of_the_mask()
{
    __shfl_xor_sync(0x7fffffffu, threadIdx.x, 1);
}

void shuffle_with_two_masks()
{
    __shfl_xor_sync(threadIdx.x == 0 ? 0x3u : 0xffffffffu, threadIdx.x, 1);
}

void shuffle_over_a_whole_warp()
{
    __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
}

void shuffle_in_a_branch()
{
    if (threadIdx.x < 16)
        __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
    else
        __syncthreads();
}

void expect_fault(void (*kernel)(), unsigned threads, const char *words)
{
    for (uint64_t schedule = 0; schedule < 3; schedule++) {
        std::string said = "nothing";
        try {
            emulator::launch(1, threads, schedule, kernel);
        } catch (const emulator::Fault &fault) {
            said = fault.what();
        }
        expect(said.find(words) != std::string::npos,
               "the emulator says '" + std::string(words) + "' but says: " + said);
    }
}

void check_emulator()
{
    expect(right_answers(true) == 3, "with a barrier every schedule gives the same");
#ifndef __SANITIZE_THREAD__ /* which would end it */
    expect(right_answers(false) < 3, "a missing barrier shows in some schedule");
#endif
    expect_fault(barrier_in_a_branch, 64, "never reach");
    expect_fault(barrier_after_some_returned, 64, "never reach");
    expect_fault(shuffle_after_a_lane_returned, 32, "has ended");
    expect_fault(shuffle_outside_of_the_mask, 32, "not in its own mask");
    expect_fault(shuffle_with_two_masks, 32, "disagree");
    expect_fault(shuffle_over_a_whole_warp, 40, "past the end");
    expect_fault(shuffle_in_a_branch, 32, "never reach");
    expect_fault(shuffle_over_a_whole_warp, 1025, "1 to 1024");
}

/* ---- instructions for the PTX machine -------------------------------------------------- */

/* %r1 and %r2 hold a and b; what %r3 holds afterwards is the result. */
std::string kernel_around(const std::string &instructions)
{
    return ".version 9.0\n.target sm_80\n.address_size 64\n"
           ".visible .entry k(.param .u64 k_a, .param .u64 k_b, .param .u64 k_out)\n{\n"
           ".reg .pred %p<4>;\n.reg .b64 %r<9>;\n.shared .align 8 .b8 room[64];\n"
           "ld.param.u64 %r1, [k_a];\nld.param.u64 %r2, [k_b];\nld.param.u64 %r4, [k_out];\n" +
           instructions + "\nst.global.u64 [%r4], %r3;\nret;\n}\n";
}

uint64_t run_ptx(const std::string &instructions, uint64_t a, uint64_t b, unsigned threads)
{
    const ptx::Module module = ptx::parse(kernel_around(instructions));
    ptx::Machine machine(module);
    uint64_t out = 0;
    machine.allow(&out, sizeof(out));
    machine.launch("k", 1, threads, 0, { a, b, reinterpret_cast<uint64_t>(&out) });
    return out;
}

void expect_result(const char *instructions, uint64_t a, uint64_t b, uint64_t want)
{
    const uint64_t got = run_ptx(instructions, a, b, 1);
    char text[200];
    std::snprintf(text, sizeof(text), "%s with %llx and %llx gives %llx but gives %llx",
                  instructions, static_cast<unsigned long long>(a),
                  static_cast<unsigned long long>(b), static_cast<unsigned long long>(want),
                  static_cast<unsigned long long>(got));
    expect(got == want, text);
}

uint64_t f32(float x)
{
    return gr_f32_bits(x);
}

uint64_t f64(double x)
{
    return gr_f64_bits(x);
}

void check_integer_instructions()
{
    const uint64_t minus = ~UINT64_C(0);
    expect_result("add.s32 %r3, %r1, %r2;", 0xffffffff, 2, 1);
    expect_result("sub.s64 %r3, %r1, %r2;", 1, 2, minus);
    expect_result("mul.lo.s32 %r3, %r1, %r2;", 0x10001, 0x10001, 0x20001);
    expect_result("mul.hi.u32 %r3, %r1, %r2;", 0xffffffff, 0xffffffff, 0xfffffffe);
    expect_result("mul.hi.u64 %r3, %r1, %r2;", minus, minus, minus - 1);
    expect_result("mul.hi.s32 %r3, %r1, %r2;", 0xffffffff, 5, 0xffffffff);
    expect_result("mul.wide.u32 %r3, %r1, %r2;", 0xffffffff, 2, UINT64_C(0x1fffffffe));
    expect_result("mul.wide.s32 %r3, %r1, %r2;", 0xffffffff, 2, minus - 1);
    expect_result("mad.lo.s32 %r3, %r1, %r2, 7;", 0xffffffff, 1, 6);
    expect_result("mad.wide.u32 %r3, %r1, %r2, 7;", 0xffffffff, 1, UINT64_C(0x100000006));
    expect_result("div.s32 %r3, %r1, %r2;", 0xfffffff9, 2, 0xfffffffd);
    expect_result("neg.s32 %r3, %r1;", 5, 0, 0xfffffffb);
    expect_result("abs.s32 %r3, %r1;", 0xfffffffb, 0, 5);
    expect_result("min.s32 %r3, %r1, %r2;", 0xffffffff, 1, 0xffffffff);
    expect_result("min.u32 %r3, %r1, %r2;", 0xffffffff, 1, 1);
    expect_result("max.s64 %r3, %r1, %r2;", minus, 1, 1);
    expect_result("shr.s32 %r3, %r1, %r2;", 0x80000000, 40, 0xffffffff);
    expect_result("shr.u32 %r3, %r1, %r2;", 0x80000000, 31, 1);
    expect_result("shr.u32 %r3, %r1, %r2;", 0x80000000, 32, 0);
    expect_result("shl.b32 %r3, %r1, %r2;", 3, 31, 0x80000000);
    expect_result("shl.b64 %r3, %r1, %r2;", 3, 64, 0);
    expect_result("and.b32 %r3, %r1, %r2;", 0xff0, 0x0ff, 0x0f0);
    expect_result("or.b64 %r3, %r1, %r2;", 0xff0, 0x0ff, 0xfff);
    expect_result("xor.b32 %r3, %r1, %r2;", 0xff0, 0x0ff, 0xf0f);
    expect_result("not.b16 %r3, %r1;", 1, 0, 0xfffe);
    expect_result("bfi.b32 %r3, %r1, %r2, 8, 4;", 0xff, 0, 0xf00);
    expect_result("bfi.b64 %r3, %r1, %r2, 52, 12;", 1, 5, UINT64_C(1) << 52 | 5);
    expect_result("bfe.u32 %r3, %r1, 8, 4;", 0xabcd, 0, 0xb);
    expect_result("bfe.s32 %r3, %r1, 8, 4;", 0xabcd, 0, 0xfffffffb);
    expect_result("popc.b32 %r3, %r1;", 0xf0f, 0, 8);
    expect_result("clz.b32 %r3, %r1;", 1, 0, 31);
    expect_result("clz.b64 %r3, %r1;", 1, 0, 63);
    expect_result("prmt.b32 %r3, %r1, %r2, 21520;", 0x33221100, 0x77665544, 0x55441100);
    expect_result("prmt.b32 %r3, %r1, %r2, 8;", 0x80, 0, 0x808080ff);
    expect_result("lop3.b32 %r3, %r1, %r2, 255, 150;", 0xf0, 0xcc, 0xf0 ^ 0xcc ^ 0xff);
    expect_result("shf.l.wrap.b32 %r3, %r1, %r2, 8;", 0xab000000, 0x11, 0x11ab);
    expect_result("shf.r.wrap.b32 %r3, %r1, %r2, 8;", 0xab, 0x11, 0x11000000);
    expect_result("rem.u32 %r3, %r1, %r2;", 17, 5, 2);
    expect_result("st.shared.u32 [room], %r1;\natom.shared.add.u32 %r3, [room], %r2;", 3, 4, 3);
    expect_result("st.shared.u32 [room], %r1;\nred.shared.max.u32 [room], %r2;\n"
                  "ld.shared.u32 %r3, [room];",
                  3, 4, 4);
    expect_result("st.shared.u32 [room], %r1;\natom.shared.cas.b32 %r5, [room], 3, %r2;\n"
                  "ld.shared.u32 %r3, [room];",
                  3, 4, 4);
    expect_result("mov.b64 {%r5, %r6}, %r1;\nmov.b64 %r3, {%r6, %r5};", UINT64_C(1) << 32 | 2,
                  0, UINT64_C(2) << 32 | 1);
    expect_result("mov.b64 %r7, {%r5, %r1};\nmov.b64 {%r6, %r3}, %r7;", 3, 0, 3);
    expect_result("mov.b64 %r7, {%r1, %r5};\nmov.b64 {%r3, %r6}, %r7;", 3, 0, 3);
    expect_result("setp.lt.s32 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", 0xffffffff, 1, 3);
    expect_result("setp.lt.u32 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", 0xffffffff, 1, 4);
    expect_result("setp.eq.s32 %p1, %r1, %r2;\nnot.pred %p2, %p1;\nselp.b64 %r3, 3, 4, %p2;", 1,
                  1, 4);
    expect_result(
        "mov.b64 %r3, 1;\nsetp.eq.s32 %p1, %r1, %r2;\n@%p1 bra $L;\nmov.b64 %r3, 2;\n$L:", 5, 5,
        1);
    expect_result("mov.b64 %r3, 1;\nsetp.eq.s32 %p1, %r1, %r2;\n@!%p1 mov.b64 %r3, 2;", 5, 6,
                  2);
    expect_result("st.shared.u32 [room+4], %r1;\nst.shared.u32 [room], %r2;\n"
                  "ld.shared.u64 %r3, [room];",
                  1, 2, UINT64_C(1) << 32 | 2);
    expect_result("st.shared.u16 [room], %r1;\nld.shared.s16 %r3, [room];", 0x8000, 0,
                  UINT64_C(0xffffffffffff8000));
}

void check_float_instructions()
{
    const float not_a_number = gr_bits_f32(0x7fc00000u);
    const uint64_t nan64 = UINT64_C(0x7ff8000000000000);
    expect_result("add.rn.f32 %r3, %r1, %r2;", f32(1.0f), f32(0x1p-24f), f32(1.0f));
    expect_result("add.rn.f64 %r3, %r1, %r2;", f64(1.0), f64(0x1p-52), f64(1.0 + 0x1p-52));
    expect_result("mul.rn.f32 %r3, %r1, %r2;", f32(0x1p-100f), f32(0x1p-49f), f32(0x1p-149f));
    expect_result("fma.rn.f32 %r3, %r1, %r1, %r2;", f32(1.0f + 0x1p-12f), f32(-1.0f - 0x1p-11f),
                  f32(0x1p-24f));
    expect_result("div.rn.f64 %r3, %r1, %r2;", f64(1.0), f64(3.0), f64(1.0 / 3.0));
    expect_result("sqrt.rn.f64 %r3, %r1;", f64(2.0), 0, f64(0x1.6a09e667f3bcdp+0));
    expect_result("neg.f64 %r3, %r1;", 0, 0, f64(-0.0));
    expect_result("abs.f32 %r3, %r1;", f32(-2.5f), 0, f32(2.5f));
    expect_result("setp.ltu.f32 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", f32(not_a_number), 0,
                  3);
    expect_result("setp.ne.f32 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", f32(not_a_number), 0,
                  4);
    expect_result("setp.nan.f64 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", nan64, 0, 3);
    expect_result("max.f32 %r3, %r1, %r2;", f32(not_a_number), f32(1.0f), f32(1.0f));
    expect_result("max.f32 %r3, %r1, %r2;", f32(-0.0f), f32(0.0f), f32(0.0f));
    expect_result("min.f64 %r3, %r1, %r2;", f64(0.0), f64(-0.0), f64(-0.0));
    expect_result("setp.geu.f64 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", f64(1.0), f64(2.0),
                  4);
    expect_result("setp.num.f64 %p1, %r1, %r2;\nselp.b64 %r3, 3, 4, %p1;", f64(1.0), f64(2.0),
                  3);
    expect_result("cvt.f64.f32 %r3, %r1;", f32(0x1p-149f), 0, f64(0x1p-149));
    expect_result("cvt.rn.f32.f64 %r3, %r1;", f64(1.0 + 0x1p-24 + 0x1p-40), 0,
                  f32(1.0f + 0x1p-23f));
    expect_result("cvt.rn.f64.s32 %r3, %r1;", 0xffffffff, 0, f64(-1.0));
    expect_result("cvt.rn.f64.u32 %r3, %r1;", 0xffffffff, 0, f64(4294967295.0));
    expect_result("cvt.rn.f32.u16 %r3, %r1;", 1023, 0, f32(1023.0f));
    expect_result("cvt.rzi.s32.f64 %r3, %r1;", f64(-2.9), 0, 0xfffffffe);
    expect_result("cvt.rzi.s32.f64 %r3, %r1;", f64(1e300), 0, 0x7fffffff);
    expect_result("cvt.rzi.s32.f64 %r3, %r1;", f64(-1e300), 0, 0x80000000);
    expect_result("cvt.rzi.s64.f64 %r3, %r1;", f64(0x1p+62), 0, UINT64_C(1) << 62);
    expect_result("cvt.rzi.s64.f64 %r3, %r1;", nan64, 0, UINT64_C(1) << 63);
    expect_result("cvt.u64.u32 %r3, %r1;", ~UINT64_C(0), 0, 0xffffffff);
    expect_result("cvt.s64.s32 %r3, %r1;", 0xffffffff, 0, ~UINT64_C(0));
    expect_result("cvt.u32.u16 %r3, %r1;", 0x12345, 0, 0x2345);
}

void expect_error(const char *instructions, const char *words, unsigned threads = 1)
{
    std::string said = "nothing";
    try {
        run_ptx(instructions, 6, 0, threads);
    } catch (const ptx::Error &error) {
        said = error.what();
    }
    expect(said.find(words) != std::string::npos,
           std::string(instructions) + " is told '" + words + "' but is told: " + said);
}

void check_ptx_errors()
{
    expect_error("add.s64 %r3, %r7, %r1;", "register that was never written");
    expect_error("mov.b64 %r3, {%r5, %r6};", "register that was never written");
    expect_error("mov.b64 %r3, {%r5, %r1};\nadd.s64 %r3, %r3, 1;", "that was never written");
    expect_error("mov.b64 %r7, {%r1, %r5};\nmov.b64 {%r6, %r3}, %r7;",
                 "that was never written");
    expect_error("ld.shared.u64 %r3, [room+8];", "memory that was never written");
    expect_error("ld.shared.u64 %r3, [room+64];", "out of bounds");
    expect_error("st.shared.u32 [room+2], %r1;", "misaligned");
    expect_error("ld.global.u64 %r3, [%r4+8];", "out of bounds");
    expect_error("ld.global.u64 %r3, [%r4+-8];", "out of bounds");
    expect_error("ld.global.u64 %r3, [%r2];", "out of bounds");
    expect_error("ld.global.v2.u32 {%r3, %r5}, [%r4+4];", "misaligned");
    expect_error("add.f32 %r3, %r1, %r2;", "leaves its rounding open");
    expect_error("mul.f64 %r3, %r1, %r2;", "leaves its rounding open");
    expect_error("add.rn.ftz.f32 %r3, %r1, %r2;", "not IEEE");
    expect_error("sqrt.approx.f32 %r3, %r1;", "not IEEE");
    expect_error("cvt.rni.s32.f64 %r3, %r1;", "not supported");
    expect_error("cos.f32 %r3, %r1;", "not supported");
    expect_error("add.s32 %r3, %r1;", "number of operands");
    expect_error("div.u32 %r3, %r1, %r2;", "divided by zero");
    expect_error("mov.u64 %r3, nowhere;", "operand 'nowhere'");
    expect_error("bra $nowhere;", "no label");
    expect_error("setp.lt.and.s32 %p1, %r1, %r2, %p0;", "number of operands");
    expect_error("mov.u32 %r5, %tid.x;\nsetp.lt.u32 %p1, %r5, 32;\n@%p1 bar.sync 0;\n"
                 "mov.b64 %r3, 0;",
                 "never reach", 64);
    expect_error("mov.u32 %r5, %tid.x;\nsetp.eq.u32 %p1, %r5, 3;\n@%p1 ret;\n"
                 "shfl.sync.bfly.b32 %r3|%p2, %r5, 1, 31, -1;",
                 "missing or has ended", 32);
    expect_error("shfl.sync.bfly.b32 %r3|%p2, %r1, 1, 31, 30;", "not in its own mask", 32);
    expect_error("vote.sync.uni.pred %p1, %p0, -1;", "register that was never written", 32);
}

void check_ptx_shuffle()
{
    const char *sum = "mov.u32 %r5, %tid.x;\n"
                      "shfl.sync.bfly.b32 %r6|%p1, %r5, 16, 31, -1;\nadd.s32 %r5, %r5, %r6;\n"
                      "shfl.sync.bfly.b32 %r6|%p1, %r5, 8, 31, -1;\nadd.s32 %r5, %r5, %r6;\n"
                      "shfl.sync.bfly.b32 %r6|%p1, %r5, 4, 31, -1;\nadd.s32 %r5, %r5, %r6;\n"
                      "shfl.sync.bfly.b32 %r6|%p1, %r5, 2, 31, -1;\nadd.s32 %r5, %r5, %r6;\n"
                      "shfl.sync.bfly.b32 %r6|%p1, %r5, 1, 31, -1;\nadd.s32 %r3, %r5, %r6;\n";
    expect(run_ptx(sum, 0, 0, 32) == 31 * 32 / 2, "a butterfly adds all lanes");
    /* Lane 0 is not the last to store: the result is that of the last lane, 31. */
    const char *start = "mov.u32 %r5, %tid.x;\n";
    const auto last = [&](const char *shuffle) {
        return run_ptx(std::string(start) + shuffle, 0, 0, 32);
    };
    expect(last("shfl.sync.down.b32 %r3|%p1, %r5, 1, 31, -1;") == 31,
           "down keeps the last lane's own value");
    expect(last("shfl.sync.up.b32 %r3|%p1, %r5, 3, 0, -1;") == 28,
           "up takes an earlier lane's");
    expect(last("shfl.sync.idx.b32 %r3|%p1, %r5, 2, 6175, -1;") == 26,
           "an index counts within eight lanes");
    expect(last("setp.gt.u32 %p2, %r5, 29;\nvote.sync.ballot.b32 %r3, %p2, -1;") == 0xc0000000u,
           "a ballot has a bit per lane");
    expect(run_ptx("mov.u32 %r5, %tid.x;\n$T: .branchtargets $A, $B;\n"
                   "brx.idx %r1, $T;\n$A: mov.b64 %r3, 10;\nbra $C;\n"
                   "$B: mov.b64 %r3, 20;\n$C:",
                   1, 0, 1) == 20,
           "an indexed branch takes the second label");
}

/* ---- clusters in the PTX machine ----------------------------------------------------------- */

/* Every block has its rank in `room`, and leaves %r3 at its own place behind out; %r5 is the rank,
 * %r6 the next one, %r7 its `room` as a generic address and %r8 in the 32 bits of its state space. */
std::vector<uint64_t> run_cluster(const std::string &instructions, unsigned grid = 4)
{
    const ptx::Module module = ptx::parse(
        kernel_around("mov.u32 %r5, %cluster_ctarank;\nmov.u32 %r6, %cluster_nctarank;\n"
                      "mov.u32 %r3, %ctaid.x;\nmad.wide.u32 %r4, %r3, 8, %r4;\n"
                      "add.s32 %r3, %r5, 1;\nrem.u32 %r6, %r3, %r6;\n"
                      "mov.u32 %r8, room;\ncvta.shared.u64 %r7, %r8;\n"
                      "mapa.u64 %r7, %r7, %r6;\nmapa.shared::cluster.u32 %r8, %r8, %r6;\n"
                      "st.shared.u32 [room], %r5;\n" +
                      instructions));
    ptx::Machine machine(module);
    std::vector<uint64_t> out(grid, 99);
    machine.allow(out.data(), out.size() * sizeof(out[0]));
    const uint64_t arguments[] = { 6, 0, reinterpret_cast<uint64_t>(out.data()) };
    std::vector<std::vector<unsigned char>> bytes;
    for (uint64_t one : arguments) {
        bytes.emplace_back(sizeof(one));
        std::memcpy(bytes.back().data(), &one, sizeof(one));
    }
    machine.launch(module.at("k"), { grid, 1, 1 }, { 2, 1, 1 }, 0, 0, bytes, 4);
    return out;
}

void expect_cluster_error(const char *instructions, const char *words, unsigned grid = 4)
{
    std::string said = "nothing";
    try {
        run_cluster(instructions, grid);
    } catch (const ptx::Error &error) {
        said = error.what();
    }
    expect(said.find(words) != std::string::npos,
           std::string(instructions) + " is told '" + words + "' but is told: " + said);
}

#define WAIT "barrier.cluster.arrive;\nbarrier.cluster.wait;\n"

void check_ptx_clusters()
{
    const std::vector<uint64_t> next = { 1, 2, 3, 0 }, last = { 3, 0, 1, 2 };
    expect(run_cluster(WAIT "ld.u32 %r3, [%r7];\n" WAIT) == next,
           "a mapped generic address is the next block's");
    expect(run_cluster(WAIT "ld.shared::cluster.u32 %r3, [%r8];\n" WAIT) == next,
           "so is one of 32 bits");
    expect(run_cluster(WAIT "st.shared::cluster.u32 [%r8], %r5;\n" WAIT
                            "ld.shared.u32 %r3, [room];") == last,
           "a block finds what the one before it stored");
    expect(run_cluster(WAIT "ld.shared::cta.u32 %r3, [room];") ==
               std::vector<uint64_t>({ 0, 1, 2, 3 }),
           "every block has its own memory");
    expect(run_cluster(WAIT "ld.u32 %r3, [%r7];\n" WAIT, 8) ==
               std::vector<uint64_t>({ 1, 2, 3, 0, 1, 2, 3, 0 }),
           "a grid may have several clusters");
    expect_cluster_error(WAIT "mov.b64 %r3, 0;", "whole clusters", 6);
    expect_cluster_error("ld.u32 %r3, [%r7];\n" WAIT, "never written");
    expect_cluster_error(WAIT "ld.shared.u32 %r3, [%r7];\n" WAIT, "out of bounds");
    expect_cluster_error(WAIT "ld.u32 %r3, [%r7+64];\n" WAIT, "out of bounds");
    expect_cluster_error("mapa.u64 %r3, %r4, %r5;", "not the block's shared memory");
    expect_cluster_error("mov.u32 %r3, room;\nmapa.shared::cluster.u32 %r3, %r3, 4;",
                         "no such block");
    expect_cluster_error(WAIT "setp.eq.u32 %p1, %r5, 0;\n@%p1 ret;\n"
                              "setp.ne.u32 %p1, %r5, 3;\n@%p1 bra $L;\nld.u32 %r3, [%r7];\n$L:",
                         "of a block that has ended");
    expect_cluster_error("barrier.cluster.arrive;\nbarrier.cluster.arrive;", "a second time");
    expect_cluster_error("barrier.cluster.wait;", "before arriving");
    expect_cluster_error("barrier.cluster.arrive.relaxed;", "not supported");
    expect_cluster_error("setp.eq.u32 %p1, %r5, 3;\n@%p1 ret;\n" WAIT, "never reach");
}

} // namespace

int main()
{
    check_emulator();
    check_integer_instructions();
    check_float_instructions();
    check_ptx_errors();
    check_ptx_shuffle();
    check_ptx_clusters();
    return told("emulators", "");
}
