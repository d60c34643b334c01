# SPDX-License-Identifier: Apache-2.0
"""The table that check_cuda.py goes by: kernels by name, and what their machine code must be."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """``pattern`` finds kernels by name. ``must``, ``must_not``: instructions by parts of their names, so that
    "LDG.128" is LDG.E.128. ``registers``: the most. ``blocks``: at least so many side by side, with
    ``dynamic_shared`` bytes each and ``threads`` (else those of the launch bounds). ``since``: the first
    architecture that it holds for."""

    pattern: str
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    registers: int = 0
    blocks: int = 0
    dynamic_shared: int = 0
    threads: int = 0
    since: int = 75

    def speaks_of(self, name: str, arch: int) -> bool:
        return arch >= self.since and re.search(self.pattern, name) is not None


#: Kernels that compute with doubles on purpose: scalars of a step, worked out once a thread or once a block, and
#: sums of losses and metrics, which are double on every device. What an element costs stays float.
DOUBLES = re.compile(
    r"^(advance_step|begin_step|begin_ema|begin_accumulation|square_sum|update|ema|accumulate|dropout|unary_bwd_dropped"
    r"|reduce_rows|weigh_rows|share_rows|equal_weights|sum_losses|count_right|count_agreeing|sum_residuals"
    r"|matmul_tiles|matmul_thin|matmul_mma_tiles|matmul_bf16_tiles|run_chain)\b"
)
#: Kernels that may keep values in local memory: these save two registers around the rare path of a division or a
#: root, which the compiler calls as a function.
SPILLS = re.compile(r"^unary_bwd_dropped<(Sqrt|Mish|GeluTanh)>")

#: 16 bytes at a time in and out, where operands are aligned.
FLAT = ("LDG.128", "STG.128")

RULES: list[Rule] = [
    # element by element: memory is the limit, eight blocks of 256 threads keep it busy
    Rule(r"^(unary_fwd|unary_bwd|binary)<", must=FLAT, registers=64, blocks=4, threads=256, since=80),
    Rule(r"^copy\b", must=FLAT, blocks=4, threads=256, since=80),
    Rule(r"^transpose\b", blocks=6, since=80),
    # optimisers: 28 bytes a parameter
    Rule(r"^update(_list)?<", must=FLAT, blocks=4),
    Rule(r"^(ema|accumulate)$", must=FLAT, registers=64),
    Rule(r"^square_sum$", must=("LDG.128",), blocks=4),
    # rows in registers
    Rule(r"^(softmax_fwd|cross_entropy)<", must=("MUFU.EX2",), blocks=1),
    Rule(r"^cross_entropy<", must=FLAT, blocks=1),
    Rule(r"^norm_(fwd|bwd)<", must=FLAT, blocks=1),
    Rule(r"^reduce_rows<", blocks=4),
    Rule(r"^add_rows\b", blocks=2, since=80),
    # a network in one launch: products from shared memory; see chain_cuda.cu
    Rule(r"^run_chain<ChainOld>", must=("FFMA", "LDS.128"), registers=128, blocks=1),
    Rule(r"^run_chain<ChainNew>", must=("HMMA", "FFMA", "LDS.128", "LDGSTS.128"), registers=128, blocks=1, since=80),
    # products on the multiply-add units: 128 x 128, 64 x 64, 32 x 32, 128 x 16 and 16 x 128 outputs a block
    Rule(r"matmul_tiles<", must=("FFMA", "LDS.128", "LDG.128", "STG.128")),
    Rule(r"matmul_tiles<Tile<8, 8, 8", registers=128, blocks=2),
    Rule(r"matmul_tiles<Tile<8, 4, 16", registers=128, blocks=4, since=80),
    Rule(r"matmul_tiles<Tile<4, 4, 16, 2", registers=96, blocks=9, since=80),
    Rule(r"matmul_tiles<Tile<4, 4, 16, (4|1)", registers=96, blocks=4, since=80),
    Rule(r"matmul_thin<", must=("FFMA", "LDS.128", "STG.128"), blocks=2),
    Rule(r"matmul_thin<true>", must=("SHFL",)),
    # products on the matrix units: 16-byte copies into shared memory, 16-byte reads of it, 16-byte results
    Rule(r"matmul_mma_tiles<.*MmaBf16>", must=("HMMA.16816.F32.BF16", "LDGSTS.128", "LDS.128", "STG.128"), since=80),
    Rule(r"matmul_mma_tiles<.*(Tf32|Float32<.*>) *>", must=("HMMA.1688.F32.TF32", "LDGSTS.128", "LDS.128", "STG.128"), since=80),
    Rule(r"^matmul_bf16_tiles<", must=("HMMA.16816.F32.BF16", "LDSM", "LDGSTS.128", "STG.128"), registers=255, blocks=1, dynamic_shared=144 * 1024, since=80),
    Rule(r"^to_bf16$", must=("LDG.128", "STG.128"), blocks=4, since=80),
    # shared memory, and so the number of blocks: see matmul_mma_choice_cuda.h
    Rule(r"matmul_mma_tiles<MmaShape<32, 32,", blocks=2, dynamic_shared=48 * 1024, since=80),
    Rule(r"matmul_mma_tiles<MmaShape<64, 32,", blocks=1, dynamic_shared=96 * 1024, since=80),
]  # fmt: skip
