"""Array types with shapes in them: jaxtyping's where it is installed, else types that say nothing.

The models and the train step run on images that hold jax, flax and optax alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Int16, Key, Shaped
else:
    try:
        from jaxtyping import Array, Bool, Float, Int, Int16, Key, Shaped
    except ImportError:

        class _Untyped:
            def __class_getitem__(cls, _):
                return Any

        Array = Any
        Bool = Float = Int = Int16 = Key = Shaped = _Untyped

__all__ = ["Array", "Bool", "Float", "Int", "Int16", "Key", "Shaped"]
