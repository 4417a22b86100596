"""Flask-Caching's cache: `CACHE_TYPE = "data_bridge.kv.flask_caching.kv_cache"`.

The URL stands in `CACHE_KV_URL` (KV_URL unless given, or `memory://`), a prefix of keys in `CACHE_KEY_PREFIX`, further
options of `kv.connect` in `CACHE_OPTIONS`. It is cachelib's cache: a timeout of 0 is for ever.
"""

from __future__ import annotations

from typing import Any

from data_bridge.kv.cachelib import KVCache


def kv_cache(_app: Any, config: dict[str, Any], args: list[Any], options: dict[str, Any]) -> KVCache:
    """What Flask-Caching calls to make the cache of an application."""
    if args:
        raise TypeError("CACHE_ARGS has no meaning here: use CACHE_KV_URL and CACHE_OPTIONS")
    return KVCache(config.get("CACHE_KV_URL"), key_prefix=config.get("CACHE_KEY_PREFIX") or "", **options)
