"""`curl -X POST …/interrogate` sends neither a body nor a type of one, and means it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from starlette.datastructures import Headers

from .access import Access, Refusal, is_foreign


class BodilessPosts(Access):
    """Access that takes a POST without a body for one of JSON, unless a page of another site sends it.

    Such a page cannot hide that: browsers send an Origin with every POST.
    """

    @classmethod
    def of(cls, access: Access) -> BodilessPosts:
        return cls(**{each.name: getattr(access, each.name) for each in fields(access)})

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        known = Headers(dict(headers))
        has_body = known.get("Content-Length", "0").strip() != "0" or "Transfer-Encoding" in known
        is_bare = method == "POST" and "Content-Type" not in known and not has_body
        if is_bare and self._may_be_bare(known):
            return super().refusal(method, Headers({**known, "content-type": "application/json"}))
        return super().refusal(method, headers)

    def _may_be_bare(self, headers: Mapping[str, str]) -> bool:
        origin = headers.get("Origin")
        if origin is None or (self.cors is not None and origin.lower() in self.cors):
            return True
        return headers.get("Sec-Fetch-Site", "same-origin") == "same-origin" and not is_foreign(headers)
