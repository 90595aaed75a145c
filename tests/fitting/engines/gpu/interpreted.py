"""Apply a function of the kernels to the numbers in one file: ``interpreted.py NAME IN OUT``.

A program of its own, as Triton has to interpret from the start (``TRITON_INTERPRET=1``).
"""

import sys

import torch
import triton
import triton.language as tl

from fitting.engines.gpu.product import split
from fitting.engines.gpu.sine import sincos_half_turns


@triton.jit
def sine_kernel(x_ptr, first_ptr, second_ptr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    first, second = sincos_half_turns(tl.load(x_ptr + place))
    tl.store(first_ptr + place, first)
    tl.store(second_ptr + place, second)


@triton.jit
def split_kernel(x_ptr, first_ptr, second_ptr, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    first, second = split(tl.load(x_ptr + place))
    tl.store(first_ptr + place, first)
    tl.store(second_ptr + place, second)


if __name__ == "__main__":
    kernel = {"sine": sine_kernel, "split": split_kernel}[sys.argv[1]]
    numbers = torch.load(sys.argv[2])
    padded = torch.zeros(1 << (len(numbers) - 1).bit_length())
    padded[: len(numbers)] = numbers
    first, second = torch.empty_like(padded), torch.empty_like(padded)
    kernel[(1,)](padded, first, second, len(padded))
    torch.save((first[: len(numbers)].clone(), second[: len(numbers)].clone()), sys.argv[3])
