"""Records of arrays without their reference counts, for the compiled search.

Numba counts a reference to every array of a record wherever the record is handed on, even to a function that is
expanded in place, and the atomic additions cost more than the small functions of the search do. A borrowed record has
the same arrays and counts nothing, so that the search can hand its records around by name.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

T = TypeVar("T")


def _without_references(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """The value with the owner of each array in it set to none."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value=value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        for k, part in enumerate(kind):
            inner = _without_references(context, builder, part, builder.extract_value(value, k))
            value = builder.insert_value(value, inner, k)
    return value


@intrinsic
def _borrowed(typing_context: Any, record: Any) -> Any:
    """`borrowed`, as numba asks for it: its signature and how its code is made."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _without_references(context, builder, signature.args[0], arguments[0])

    return record(record), codegen


def _itself(record: T) -> T:
    return record


borrowed: Any = _itself if numba.config.DISABLE_JIT else _borrowed
"""The same record, uncounted: valid as long as the caller's is. Not to be returned or kept."""
