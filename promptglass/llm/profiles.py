"""Named endpoints: those that are built in, and a person's own in a YAML file.

    endpoints:
      ollama:                    # one of ours, with a model
        model: qwen2.5:3b
      eyes:                      # one of their own
        protocol: openai
        base_url: http://gpu-box:8080/v1
        model: qwen2.5-vl-7b

A key is never in there: the profile names the environment variable or the private file that holds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError, cause_of, visible
from ..folders import config_path

PROTOCOLS = ("openai", "ollama", "anthropic")
UNLOAD = ("after_batch", "after_each", "never")


@dataclass(frozen=True)
class Profile:
    name: str
    protocol: str
    base_url: str  # with or without /v1
    model: str = ""  # or the only one that the server has
    key_env: str = ""  # the environment variable that holds the key
    key_file: str = ""  # or a file that only its owner can read
    connect_s: float = 5.0
    first_byte_s: float = 180.0  # a large model is loaded within the first request
    between_chunks_s: float = 60.0
    total_s: float = 600.0  # a call with everything: retries, a repair of its JSON
    retries: int = 3
    concurrency: int = 0  # 0: one at a time for Ollama, four elsewhere
    max_image_side: int = 1024
    unload: str = "after_batch"  # when whoever runs a batch is to call release()
    server: str = ""  # llama.cpp or lmstudio: which call unloads a model, where OpenAI's protocol has none
    allow_plain_http: bool = False  # send the key unencrypted to other hosts than those of one's own network
    extra: Mapping[str, Any] = field(default_factory=dict)  # put into every request: num_ctx, think, ttl

    def __post_init__(self) -> None:
        if not self.concurrency:
            object.__setattr__(self, "concurrency", 1 if self.protocol == "ollama" else 4)

    def key(self) -> tuple[str, str]:
        """The key, and where it is from; both empty where the profile names none."""
        if self.key_env and (key := os.environ.get(self.key_env, "").strip()):
            return checked_key(key, self.key_env), self.key_env
        if self.key_file:
            return checked_key(private_file(self.key_file), self.key_file), self.key_file
        if self.key_env:
            raise InputError(f"{self.name}: {self.key_env} is not set. Put the key into it.")
        return "", ""


def profile(name: str, config: Path | None = None) -> Profile:
    """The profile of a name. `config` is read instead of the person's own file."""
    known = profiles(config)
    if name not in known:
        path = config or config_path()
        raise InputError(
            f"there is no endpoint {visible(name)!r}. There are: {', '.join(known)}. "
            f"Others go into {visible(str(path))}, below endpoints:"
        )
    return known[name]


def profiles(config: Path | None = None) -> dict[str, Profile]:
    """All profiles, ours first."""
    known = dict(_built_in())
    path = config or config_path()
    for name, settings in _endpoints_in(path, must_exist=config is not None).items():
        known[name] = _profile(name, settings, known.get(name), f"{visible(str(path))}: endpoint {name}")
    return known


def changed(profile: Profile, **changes: Any) -> Profile:
    """A profile with other settings, checked like those of a file. A key stays with its host."""
    changes = {name: value for name, value in changes.items() if value is not None}
    return _profile(profile.name, changes, profile, f"endpoint {profile.name}")


def _built_in() -> dict[str, Profile]:
    ours = (
        Profile("ollama", "ollama", _ollama_host(os.environ.get("OLLAMA_HOST", ""))),
        Profile("llama.cpp", "openai", "http://127.0.0.1:8080", server="llama.cpp"),
        Profile("lmstudio", "openai", "http://127.0.0.1:1234", server="lmstudio"),
        Profile("vllm", "openai", "http://127.0.0.1:8000"),
        Profile("openai", "openai", "https://api.openai.com", key_env="OPENAI_API_KEY"),
        Profile("anthropic", "anthropic", "https://api.anthropic.com", key_env="ANTHROPIC_API_KEY"),
        Profile("openrouter", "openai", "https://openrouter.ai/api", key_env="OPENROUTER_API_KEY"),
    )
    return {one.name: one for one in ours}


def _ollama_host(said: str) -> str:
    """OLLAMA_HOST as Ollama reads it: host, host:port or an address; a server's 0.0.0.0 is our loopback."""
    said = said.strip().strip("\"'") or "127.0.0.1"
    scheme, separator, rest = said.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port or ({"http": 80, "https": 443}[parts.scheme] if separator else 11434)
    except (ValueError, KeyError):
        raise InputError(f"OLLAMA_HOST={visible(said)} is not an address. Set it to host:port.") from None
    host = parts.hostname or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"


def _endpoints_in(path: Path, must_exist: bool) -> dict[str, Any]:
    import yaml

    must_exist = must_exist or bool(os.environ.get("PROMPTGLASS_CONFIG"))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise InputError(f"cannot read {visible(str(path))}: there is no such file.") from None
        return {}
    except OSError as error:
        raise InputError(f"cannot read {visible(str(path))}: {cause_of(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Not `from error`: it may quote the line that a key was put into.
        raise InputError(f"cannot read {visible(str(path))}: {_where(error)} Check it.") from None
    content = {} if content is None else content
    found = content.get("endpoints") if isinstance(content, dict) else content
    found = {} if found is None and isinstance(content, dict) else found
    if not isinstance(found, dict):
        raise InputError(f"{visible(str(path))}: endpoints must hold names with their settings.")
    return {str(name): settings for name, settings in found.items()}


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"it is no YAML from line {mark.line + 1} on." if mark else "it is not YAML in UTF-8."


def _profile(name: str, settings: Any, base: Profile | None, where: str) -> Profile:
    if not isinstance(settings, Mapping):
        raise InputError(f"{where}: must hold settings, such as base_url and model.")
    for setting, value in settings.items():
        _check(str(setting), value, where)
    if base is None:
        missing = [needed for needed in ("protocol", "base_url") if needed not in settings]
        if missing:
            raise InputError(f"{where}: {' and '.join(missing)} missing.")
        made = Profile(name, **settings)
    else:
        made = replace(base, **settings)
        if _origin(made.base_url) != _origin(base.base_url):
            # A key stays with its host: it goes to another only if the profile says so itself.
            unbound = {key: settings.get(key, "") for key in ("key_env", "key_file", "allow_plain_http")}
            made = replace(made, **{**unbound, "allow_plain_http": bool(unbound["allow_plain_http"])})
        if "protocol" in settings and "concurrency" not in settings:
            made = replace(made, concurrency=0)
    return made


_SETTINGS = {f.name: str(f.type) for f in fields(Profile) if f.name != "name"}
_CHOICES = {"protocol": PROTOCOLS, "unload": UNLOAD, "server": ("", "llama.cpp", "lmstudio")}


def _check(setting: str, value: Any, where: str) -> None:
    """No value is repeated in an error: it might be a key that was put in the wrong place."""
    if setting not in _SETTINGS:
        hint = (
            "a key is named by key_env or key_file"
            if "key" in setting
            else f"known are {', '.join(_SETTINGS)}"
        )
        raise InputError(f"{where}: unknown setting {visible(setting)!r}; {hint}.")
    kind = _SETTINGS[setting]
    if setting in _CHOICES and value not in _CHOICES[setting]:
        raise InputError(f"{where}: {setting} must be one of {', '.join(filter(None, _CHOICES[setting]))}.")
    if kind == "str" and not isinstance(value, str):
        raise InputError(f"{where}: {setting} must be text. Put it in quotes.")
    if kind == "bool" and not isinstance(value, bool):
        raise InputError(f"{where}: {setting} must be true or false.")
    if kind in ("float", "int") and not _is_number(value, kind, least=0 if setting in _MAY_BE_0 else 1e-9):
        raise InputError(f"{where}: {setting} must be a {'whole ' * (kind == 'int')}number above 0.")
    if setting == "extra" and not isinstance(value, Mapping):
        raise InputError(f"{where}: extra must hold names with values.")
    if setting == "key_env" and value and not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII):
        raise InputError(f"{where}: key_env must be the name of the variable that holds the key.")
    if setting == "base_url":
        _check_address(value, where)


_MAY_BE_0 = ("retries", "concurrency")


def _is_number(value: Any, kind: str, least: float) -> bool:
    kinds = (int,) if kind == "int" else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value < 1e9


def _check_address(value: str, where: str) -> None:
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not value.isprintable() or " " in value:
        raise InputError(f"{where}: base_url must be an address that begins with http:// or https://.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(f"{where}: base_url must hold no password and no query. Keys go by key_env.")


def _origin(base_url: str) -> tuple[str, str]:
    parts = urlsplit(base_url)
    return parts.scheme, parts.netloc.lower()


def private_file(name: str) -> str:
    """What a file says. Raises InputError where others can read it, too."""
    path = Path(name).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise InputError(f"{visible(name)}: others can read this key. Run: chmod 600 {visible(name)}")
            return file.read(8192).strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = cause_of(error) if isinstance(error, OSError) else "it is not text."
        raise InputError(f"cannot read {visible(name)}: {cause}") from None


def checked_key(key: str, source: str) -> str:
    """A key that can stand in a header; requests would quote one that cannot in its error."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{visible(source)} holds no key, or more than one. Put the key there, and only it.")
    return key
