"""Vectors of texts and images, of a catalogue or of a list; each is computed once."""

from typing import TYPE_CHECKING

from store.lazy import lazy_names

if TYPE_CHECKING:
    from embed.catalogue import embed_catalogue as embed_catalogue
    from embed.catalogue import vectors as vectors
    from embed.encoders.registry import register_encoder as register_encoder
    from embed.encoding import encode as encode
    from embed.estimators import ImageEncoder as ImageEncoder
    from embed.estimators import TextEncoder as TextEncoder

_MODULES = {
    "ImageEncoder": "embed.estimators",
    "TextEncoder": "embed.estimators",
    "embed_catalogue": "embed.catalogue",
    "encode": "embed.encoding",
    "register_encoder": "embed.encoders.registry",
    "vectors": "embed.catalogue",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
