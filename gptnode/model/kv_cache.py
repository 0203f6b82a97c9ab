"""The keys and values of one context over one span of blocks, paged by the operating system.

Each block has two regions of address space, reserved for the longest context and laid out token
by token; physical pages come as tokens are written and go back when they are truncated. History
therefore never moves: what attention reads is a view of the region. This is vAttention's way
(Prabhu et al. 2024, arXiv 2405.04437) with ``mmap`` and ``madvise`` in the place of CUDA's virtual
memory; on devices without it the region is a plain allocation.

It knows shapes and positions. What keys and values mean, and who owns the context, it doesn't.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable

import torch
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig
from gptnode.span import Span

__all__ = ["KVCache", "kv_bytes_per_token"]


def kv_bytes_per_token(config: ModelConfig, n_blocks: int, dtype: torch.dtype) -> int:
    """What one token of context costs in ``n_blocks`` blocks, keys and values together."""
    return 2 * n_blocks * config.n_kv_heads * config.head_dim * dtype.itemsize


class KVCache:
    """Keys and values of one context (``batch`` rows that grow together) over ``span``.

    A step appends to every block at ``length`` and then calls ``advance`` once; a step that
    failed half-way just isn't advanced, and the next one overwrites it.

    Resource handling: pages go back to the system with ``truncate``, ``close`` or the last
    reference to the cache and its views. Not safe for use from several threads at once.

    Raises:
        ContextError: the system won't reserve room for ``max_tokens``.
    """

    def __init__(
        self,
        config: ModelConfig,
        span: Span,
        max_tokens: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        batch: int = 1,
    ) -> None:
        """Reserve room for ``max_tokens``; on the CPU that takes no memory yet."""
        if max_tokens < 1 or batch < 1:
            raise ValueError(f"no such cache: {max_tokens} tokens, {batch} rows")
        self.span = span
        self.max_tokens = max_tokens
        self.batch = batch
        self.length = 0
        shape = (max_tokens, batch, config.n_kv_heads, config.head_dim)
        where = torch.device(device)
        try:
            self._regions = [
                (_Region(shape, dtype, where), _Region(shape, dtype, where)) for _ in span
            ]
        except (OSError, RuntimeError, MemoryError) as error:
            raise ContextError(
                f"no memory for a context of {max_tokens} tokens over blocks {span} ({error})"
            ) from error
        self._row_shape = shape[1:]
        self._dtype = dtype
        self._token_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._written = [0] * len(span)
        self._touched = 0  # where the tokens end that were ever written and not wiped since
        self._on_close: list[Callable[[], object]] = []
        # What the kernels write to and read from: (number of blocks,) in int64 each.
        self.key_addresses, self.value_addresses = (
            torch.tensor([pair[side].address for pair in self._regions]) for side in (0, 1)
        )

    @property
    def page_tokens(self) -> int:
        """How many tokens of one block's keys share a page of memory, rounded up."""
        return math.ceil(mmap.PAGESIZE / self._token_bytes)

    @property
    def bytes_reserved(self) -> int:
        """Bytes of address space (on other devices than the CPU: of memory) held for it."""
        return sum(keys.bytes_reserved + values.bytes_reserved for keys, values in self._regions)

    @property
    def bytes_in_use(self) -> int:
        """Bytes of memory that hold tokens, in whole pages."""
        return sum(keys.bytes_in_use + values.bytes_in_use for keys, values in self._regions)

    def append(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the step's tokens behind the history of ``block``.

        Args:
            block: Its number in the model.
            keys: (B, T, n_kv_heads, head_dim), rotated, of the cache's dtype.
            values: The same shape and dtype.

        Returns:
            Keys and values of the whole context, (B, length + T, n_kv_heads, head_dim): views
            of the cache, valid until it is truncated.

        Raises:
            ContextError: there is no room for T more tokens.
        """
        if block not in self.span:
            raise ValueError(f"block {block} is not in the cache of blocks {self.span}")
        if not self._regions:
            raise ValueError("the cache is closed")
        tokens = keys.shape[1]
        batch, *head_shape = self._row_shape
        for new in (keys, values):
            # Said here, because a copy would broadcast rows and cast dtypes without a word.
            if new.shape != (batch, tokens, *head_shape) or new.dtype != self._dtype:
                raise ValueError(f"can't append {new.dtype} {tuple(new.shape)} to this cache")
        end = self._end_after(tokens)
        index = block - self.span.start
        key_region, value_region = self._regions[index]
        self._written[index] = end
        self._touched = max(self._touched, end)
        return key_region.write(self.length, keys), value_region.write(self.length, values)

    def claim(self, tokens: int) -> None:
        """Make room for ``tokens`` in every block, for a caller that writes them by address.

        ``key_addresses`` and ``value_addresses`` say where each block's region begins.

        Raises:
            ContextError: there is no room for so many.
        """
        if not self._regions:
            raise ValueError("the cache is closed")
        end = self._end_after(tokens)
        for keys, values in self._regions:
            keys.commit(end)
            values.commit(end)
        self._written = [end] * len(self._written)
        self._touched = max(self._touched, end)

    def regions(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every block, (max_tokens, B, n_kv_heads, head_dim) each.

        For a step that always works in the same memory: it calls `wipe` and `claim`, writes at
        ``length``, reads whatever is there, and calls `advance`. Who keeps them lets them go when
        `on_close` says so.
        """
        return [(keys.tensor, values.tensor) for keys, values in self._regions]

    def wipe(self) -> None:
        """Zero what forgotten tokens and failed steps have left behind the context.

        A token that is masked out has no weight, but no weight times NaN is NaN.
        """
        if self._touched > self.length:
            for pair in self.regions():
                for region in pair:
                    region[self.length : self._touched].zero_()
            self._touched = self.length

    def on_close(self, call: Callable[[], object]) -> None:
        """Have ``call`` made by `close`, before the memory is given back."""
        self._on_close.append(call)

    def advance(self, tokens: int) -> None:
        """Make the ``tokens`` that were appended to every block part of the context.

        Raises:
            ValueError: some block has not had them.
        """
        if any(written != self.length + tokens for written in self._written):
            raise ValueError(f"not every block was given {tokens} tokens at {self.length}")
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget the tokens from position ``length`` on and give whole pages back.

        Raises:
            ValueError: the context is shorter than ``length``.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"can't truncate a context of {self.length} tokens to {length}")
        for keys, values in self._regions:
            keys.release(length)
            values.release(length)
        self._written = [length] * len(self._written)
        self.length = length

    def close(self) -> None:
        """Give all memory back at once, even if views are left; nothing can be appended after."""
        while self._on_close:
            self._on_close.pop()()
        self.truncate(0)
        self._regions = []
        self._written = []

    def _end_after(self, tokens: int) -> int:
        end = self.length + tokens
        if end > self.max_tokens:
            raise ContextError(f"{end} tokens don't fit in a context of {self.max_tokens} tokens")
        return end


class _Region:
    """The keys or the values of one block, (max_tokens, B, n_kv_heads, head_dim)."""

    def __init__(
        self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        """Reserve it."""
        count = math.prod(shape)
        self.token_bytes = count // shape[0] * dtype.itemsize
        self._pages: mmap.mmap | None = None
        self._committed_bytes = 0
        if device.type == "cpu" and hasattr(mmap, "MAP_PRIVATE"):
            self._pages = _reserve(count * dtype.itemsize)
            # The tensor keeps the mapping alive: it is unmapped with the last view.
            self.tensor = torch.frombuffer(self._pages, dtype=dtype, count=count).view(shape)
        else:
            # Zeros as in new pages: attention over a whole region may meet no NaN.
            self.tensor = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def address(self) -> int:
        return self.tensor.data_ptr()

    @property
    def bytes_reserved(self) -> int:
        return len(self._pages) if self._pages is not None else self.tensor.nbytes

    @property
    def bytes_in_use(self) -> int:
        return self._committed_bytes if self._pages is not None else self.tensor.nbytes

    def write(self, start: int, new: Tensor) -> Tensor:
        """Put ``new`` (B, T, H, D) at ``start``; returns (B, start + T, H, D), a view."""
        end = start + new.shape[1]
        self.tensor[start:end].copy_(new.transpose(0, 1))
        self.commit(end)
        return self.tensor[:end].transpose(0, 1)

    def commit(self, end: int) -> None:
        """Take note that the tokens before ``end`` are about to be there."""
        self._committed_bytes = max(self._committed_bytes, self._pages_up_to(end))

    def release(self, length: int) -> None:
        """Give back the pages that hold only tokens from ``length`` on."""
        keep = self._pages_up_to(length)
        if self._pages is not None and keep < self._committed_bytes:
            if hasattr(mmap, "MADV_DONTNEED"):
                self._pages.madvise(mmap.MADV_DONTNEED, keep, self._committed_bytes - keep)
            self._committed_bytes = keep

    def _pages_up_to(self, length: int) -> int:
        return math.ceil(length * self.token_bytes / mmap.PAGESIZE) * mmap.PAGESIZE


def _reserve(size_bytes: int) -> mmap.mmap:
    """Private anonymous address space: pages that are never written are never allocated."""
    whole_pages = math.ceil(size_bytes / mmap.PAGESIZE) * mmap.PAGESIZE
    # Private: pages of a shared mapping would outlive MADV_DONTNEED.
    pages = mmap.mmap(-1, whole_pages, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # Else the first token of each region might take 2 MiB.
        try:
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        except OSError:
            pass  # a kernel without huge pages
    return pages
