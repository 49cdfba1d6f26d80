"""Array types with shapes in them: jaxtyping's where it is installed, else types that say nothing.

The models and the train step run on images that hold jax, flax and optax alone. `Array` brings JAX along
and is looked up when asked for: processes that decode audio need shapes of NumPy arrays, and never JAX.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Int16, Key, Shaped, UInt16, UInt32
else:
    try:
        import jaxtyping
        from jaxtyping import Bool, Float, Int, Int16, Key, Shaped, UInt16, UInt32

        def __getattr__(name):
            if name == "Array":
                return jaxtyping.Array
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    except ImportError:

        class _Untyped:
            def __class_getitem__(cls, _):
                return Any

        Array = Any
        Bool = Float = Int = Int16 = Key = Shaped = UInt16 = UInt32 = _Untyped

__all__ = ["Array", "Bool", "Float", "Int", "Int16", "Key", "Shaped", "UInt16", "UInt32"]
