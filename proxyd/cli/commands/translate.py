"""``claude-proxy translate``: a dry run of the translation of a request or of an upstream's response."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, BinaryIO

import click

from proxyd import errors, jsonio
from proxyd.cli.exit_codes import EXIT_USAGE, CommandFailed
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.daemon.configuration import LoadedConfig, load_configuration
from proxyd.errors import ProxyError
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.learned_quirks import LearnedQuirks
from proxyd.providers.translated_request import TranslatedCall, prepare
from proxyd.secret import Secret
from proxyd.server_tools.context_edits import Edited, apply_edits
from proxyd.telemetry.call_record import new_id

__all__ = ["translate_command"]

#: Size of the chunks in which a transcript is read.
_CHUNK_BYTES = 64 * 1024

#: The request of a response, if none is given.
_ANY_REQUEST: dict[str, Any] = {"max_tokens": 1, "messages": [{"role": "user", "content": ""}]}


@click.command(
    "translate", epilog="Example: claude-proxy translate --model deepseek-chat < request.json | less"
)
@click.option("--model", required=True, metavar="ID", help="The model of models.yaml to translate for.")
@click.option("--stream", is_flag=True, help="Standard input is a response of the upstream, not a request.")
@click.option(
    "--request",
    "request_file",
    type=click.File("rb"),
    metavar="FILE",
    help="With --stream: the request of that response, for its tool names, ids and stop sequences.",
)
@click.option(
    "--refusal",
    metavar="TEXT",
    help='Show the retries after a refusal with this text or JSON body; "" for one without a reason.',
)
@click.option("--models", metavar="FILE", type=click.Path(), help="The models.yaml to use.")
def translate_command(
    model: str, stream: bool, request_file: BinaryIO | None, refusal: str | None, models: str | None
) -> None:
    """Show what a translated route makes of a request, or of an upstream's response. Nothing is called.

    Reads a Messages request and prints the body for the upstream; with --stream, reads an upstream's event stream or
    JSON response and prints the stream for the client; with --refusal, reads a request and prints how it would be
    changed for each retry, if the upstream went on refusing it so. Notes on what was dropped or altered go to standard
    error. Hooks are not run.
    """
    if request_file is not None and not stream:
        raise click.UsageError("--request goes with --stream; without it the request is standard input")
    if refusal is not None and stream:
        raise click.UsageError(
            "--refusal goes with a request, --stream with a response: leave one of them out"
        )
    loaded = load_configuration({}, models, os.environ)
    route = _route(model, loaded)
    source = sys.stdin.buffer
    payload = _ANY_REQUEST if stream and request_file is None else _parse(request_file or source)
    warnings: Counter[str] = Counter()
    try:
        call = _call({**payload, "model": model}, route, loaded, warnings)
        if refusal is not None:
            _show_retries(payload | {"model": model}, route, loaded, refusal)
        elif stream:
            _show_stream(call, iter(lambda: source.read(_CHUNK_BYTES), b""), warnings)
        else:
            _show_request(call)
    except ProxyError as exc:
        click.echo(f"the client gets HTTP {errors.error_response(exc)[0]}", err=True)
        click.echo(json.dumps(errors.envelope(exc), ensure_ascii=False, indent=2))


def _route(model: str, loaded: LoadedConfig) -> ModelRoute:
    route = loaded.config.table.resolve(model)
    if route is None:
        known = ", ".join(loaded.config.table.ids())
        raise CommandFailed(f"no model {model[:100]!r} in models.yaml; there are: {known}", EXIT_USAGE)
    if route.direct:
        raise CommandFailed(f"model {model!r} is direct: nothing of it is translated", EXIT_USAGE)
    # No call is made, so no key is needed.
    return replace(route, api_key=Secret("dry-run"), missing_key=None)


def _parse(source: BinaryIO) -> dict[str, Any]:
    try:
        payload = jsonio.loads(source.read())
    except jsonio.JSONError as exc:
        raise CommandFailed(
            f"the request is not JSON ({exc}); give a body of POST /v1/messages", EXIT_USAGE
        ) from None
    if not isinstance(payload, dict):
        raise CommandFailed("the request is not a JSON object; give a body of POST /v1/messages", EXIT_USAGE)
    return payload


def _call(
    payload: dict[str, Any], route: ModelRoute, loaded: LoadedConfig, warnings: Counter[str]
) -> TranslatedCall:
    def warn(warning: str) -> None:
        warnings[warning] += 1

    edited = apply_edits(payload, ToolInputs()) if loaded.settings.context_edits else Edited(payload, [], ())
    for note in edited.notes:
        click.echo(f"{note.path}: {note.what}: {note.why}", err=True)
    return run_to_end(
        prepare(
            route,
            route.api_base,
            edited.payload,
            ClientKeys(),
            timeouts=CallTimeouts(),
            new_id=new_id,
            warn=warn,
            max_body_bytes=loaded.settings.max_upstream_body_bytes,
            max_frame_bytes=loaded.settings.max_frame_bytes,
        )
    ).written()


def _show_request(call: TranslatedCall) -> None:
    for note in call.notes:
        times = f" ({note.times} times)" if note.times > 1 else ""
        click.echo(f"{note.path}: {note.what}{times}: {note.why}", err=True)
    click.echo(json.dumps(call.sent, ensure_ascii=False, indent=2))


def _show_retries(payload: dict[str, Any], route: ModelRoute, loaded: LoadedConfig, refusal: str) -> None:
    text = refusal.strip() or "Bad Request"
    body = text.encode() if text.startswith(("{", "[")) else jsonio.dumps({"error": {"message": text}})
    quirks, tries = LearnedQuirks(), 1
    click.echo("try 1: as translated")
    while True:
        call = _call(payload, quirks.applied_to(route), loaded, Counter())
        changed = quirks.after(400, body, call.sent, route)
        if changed is None:
            break
        quirks, tries = changed, tries + 1
        click.echo(f"try {tries}: {quirks.lines[-1]}")
    click.echo("then the client gets the refusal")


def _show_stream(call: TranslatedCall, chunks: Iterable[bytes], warnings: Counter[str]) -> None:
    decoder = call.new_decoder()
    for chunk in chunks:
        _write(decoder.feed(chunk))
        if decoder.has_ended:
            break
    _write(decoder.close())
    for warning, times in warnings.items():
        click.echo(f"{warning}{f' ({times} times)' if times > 1 else ''}", err=True)
    if decoder.failure is not None:
        click.echo(f"the stream ends in an error: {decoder.failure.message}", err=True)


def _write(frames: bytes) -> None:
    sys.stdout.buffer.write(frames)
    sys.stdout.buffer.flush()
