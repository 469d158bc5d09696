"""Ids, limits and redaction of call records."""

from __future__ import annotations

import re
from collections import Counter

from proxyd.secret import Secret
from proxyd.telemetry.call_record import MAX_MODEL_CHARS, CallRecord, new_id


def test_ids_have_prefix_length_and_alphabet() -> None:
    assert re.fullmatch(r"req_[A-Za-z0-9]{22}", new_id("req_", 22))
    ids = [new_id("msg_") for _ in range(500)]
    assert len(set(ids)) == 500
    assert all(re.fullmatch(r"msg_[A-Za-z0-9]{24}", each) for each in ids)
    assert len(Counter("".join(ids).replace("msg_", ""))) == 62


def test_model_names_are_truncated() -> None:
    assert len(CallRecord(request_id="r", model="m" * 10_000).model) == MAX_MODEL_CHARS


def test_foreign_texts_are_redacted() -> None:
    key = Secret("a-key-of-a-client")
    record = CallRecord(request_id="r", model=f"m {key.reveal()}", session_id="s")
    assert (record.model, record.session_id, record.error) == ("m ***", "s", None)
