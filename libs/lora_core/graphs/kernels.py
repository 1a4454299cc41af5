"""The adapters' products as two Triton kernels a site: shrink reads A, expand reads B. Imported where there is a GPU.

Each reads the slot of its row from memory, so that a captured launch serves the adapters that the rows have at the
time. The input is cut into chunks for shrink, whose sums expand adds up in their order: no atomic operations, and the
same numbers in every run. A program does 16 of an adapter's ranks; programs beyond a row's rank end at once.
"""

# What triton compiles has pointers and compile-time numbers for parameters, which Python has no types for.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from lora_core.graphs.sites import Site

_PIECE = 16  # ranks of a program


@dataclass(frozen=True)
class Tiles:
    """What a program does: of shrink `chunk` inputs, `inputs` of them at a time; of expand `outputs` outputs.

    The defaults were the fastest on an H200 with 64 rows of rank 16 (docs/gpu.md).
    """

    chunk: int = 256
    inputs: int = 128
    shrink_warps: int = 8
    outputs: int = 256
    expand_warps: int = 1


@triton.jit
def _shrink(  # noqa: PLR0917 - a launch is positional
    x, numbers, slots, ranks, sums, slot_length, a_place, in_features, chunks, members, pieces,
    PIECE: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # sums: float32 [rows, chunks, members, pieces · PIECE]
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    member = tl.program_id(2) // pieces
    piece = tl.program_id(2) % pieces
    slot = tl.load(slots + row)
    if slot >= 0:
        rank = tl.load(ranks + slot)
        if piece * PIECE < rank:
            part = piece * PIECE + tl.arange(0, PIECE)
            a = numbers + slot.to(tl.int64) * slot_length + rank.to(tl.int64) * a_place
            lines = (member * rank + part).to(tl.int64) * in_features
            total = tl.zeros((PIECE,), dtype=tl.float32)
            for start in range(0, CHUNK, BLOCK):
                k = chunk * CHUNK + start + tl.arange(0, BLOCK)
                inside = k < in_features
                values = tl.load(x + row * in_features + k, mask=inside, other=0.0).to(tl.float32)
                there = (part < rank)[:, None] & inside[None, :]
                weights = tl.load(a + lines[:, None] + k[None, :], mask=there, other=0.0).to(tl.float32)
                total += tl.sum(weights * values[None, :], axis=1)
            tl.store(sums + ((row * chunks + chunk) * members + member) * pieces * PIECE + part, total)


@triton.jit
def _expand_member(  # noqa: PLR0917
    output, numbers, sums, row, block, slot, rank, slot_length, b_place, out_features, chunks, members, member,
    PIECES: tl.constexpr, PIECE: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < out_features
    b = numbers + slot.to(tl.int64) * slot_length + rank.to(tl.int64) * b_place
    total = tl.load(output + row * out_features + n, mask=inside, other=0.0).to(tl.float32)
    chunk = tl.arange(0, CHUNKS)
    for piece in range(0, PIECES):
        if piece * PIECE < rank:
            part = piece * PIECE + tl.arange(0, PIECE)
            places = ((row * chunks + chunk)[:, None] * members + member) * PIECES * PIECE + part[None, :]
            reduced = tl.sum(tl.load(sums + places, mask=(chunk < chunks)[:, None], other=0.0), axis=0)
            there = (part < rank)[:, None] & inside[None, :]
            lines = part[:, None].to(tl.int64) * out_features
            weights = tl.load(b + lines + n[None, :], mask=there, other=0.0).to(tl.float32)
            total += tl.sum(weights * reduced[:, None], axis=0)
    tl.store(output + row * out_features + n, total.to(output.dtype.element_ty), mask=inside)


@triton.jit
def _expand(  # noqa: PLR0917
    first, second, third, numbers, sums, slots, ranks, slot_length,
    first_place, second_place, third_place, first_size, second_size, third_size, chunks, members,
    PIECES: tl.constexpr, PIECE: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    block = tl.program_id(1)
    slot = tl.load(slots + row)
    if slot >= 0:
        rank = tl.load(ranks + slot)
        second_at = tl.cdiv(first_size, BLOCK)
        third_at = second_at + tl.cdiv(second_size, BLOCK)
        if block < second_at:
            _expand_member(first, numbers, sums, row, block, slot, rank, slot_length, first_place, first_size,
                           chunks, members, 0, PIECES, PIECE, CHUNKS, BLOCK)  # fmt: skip
        elif block < third_at:
            _expand_member(second, numbers, sums, row, block - second_at, slot, rank, slot_length, second_place,
                           second_size, chunks, members, 1, PIECES, PIECE, CHUNKS, BLOCK)  # fmt: skip
        else:
            _expand_member(third, numbers, sums, row, block - third_at, slot, rank, slot_length, third_place,
                           third_size, chunks, members, 2, PIECES, PIECE, CHUNKS, BLOCK)  # fmt: skip


class TritonProducts:
    """`Products` by two launches a site. max_rank: of the slots."""

    def __init__(self, max_rank: int, tiles: Tiles = Tiles()) -> None:
        self._pieces, self._tiles = -(-max_rank // _PIECE), tiles

    def add(
        self, site: Site, x: torch.Tensor, outputs: Sequence[torch.Tensor], slots: torch.Tensor, ranks: torch.Tensor
    ) -> None:
        """See `Products.add`. x and outputs are contiguous."""
        rows, members, pieces, tiles = x.shape[0], len(outputs), self._pieces, self._tiles
        chunks = -(-site.in_features // tiles.chunk)
        sums = torch.empty((rows, chunks, members, pieces * _PIECE), dtype=torch.float32, device=x.device)
        length = site.numbers.shape[1]
        _shrink[rows, chunks, members * pieces](
            x, site.numbers, slots, ranks, sums, length, site.a_place, site.in_features, chunks, members, pieces,
            _PIECE, tiles.chunk, tiles.inputs, num_warps=tiles.shrink_warps,
        )  # fmt: skip
        spare = (None,) * (3 - members)
        targets = [*outputs, *(outputs[0] for _ in spare)]
        places = [*site.b_places, *(0 for _ in spare)]
        sizes = [*site.out_features, *(0 for _ in spare)]
        blocks = sum(-(-size // tiles.outputs) for size in sizes)
        _expand[rows, blocks](
            *targets, site.numbers, sums, slots, ranks, length, *places, *sizes, chunks, members,
            pieces, _PIECE, triton.next_power_of_2(chunks), tiles.outputs, num_warps=tiles.expand_warps,
        )  # fmt: skip
