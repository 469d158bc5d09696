"""Faults of the entries of models.yaml: the exact line of each, and what to do."""

from __future__ import annotations

import pytest

from proxyd.config.yaml import MAX_BYTES
from tests.support.models_yaml import HEAD, TOKENS, faults, only

WHOLE_REFERENCE = (
    "expected a literal key, or ${ENV_NAME}, ${file:PATH} or ${keyring:NAME} with nothing around it"
)

#: One line below HEAD -> the one fault it makes, from the column on (HEAD has two lines).
LINES = [
    ("max_tokens: true", f"15: models[0].max_tokens: {TOKENS}true"),
    ("max_tokens: -1", f"15: models[0].max_tokens: {TOKENS}-1"),
    ("max_tokens: 0", f"15: models[0].max_tokens: {TOKENS}0"),
    ("max_tokens: 8.5", f"15: models[0].max_tokens: {TOKENS}8.5"),
    ("max_tokens: 1.0005k", f"15: models[0].max_tokens: {TOKENS}'1.0005k'"),
    ("max_tokens: 8kk", f"15: models[0].max_tokens: {TOKENS}'8kk'"),
    ("max_tokens: 2000m", f"15: models[0].max_tokens: {TOKENS}'2000m'"),
    ("max_tokens:", f"3: models[0].max_tokens: {TOKENS}nothing"),
    ("max_tokens: [8k]", f"15: models[0].max_tokens: {TOKENS}a list"),
    ("context: 1e6", f"12: models[0].context: {TOKENS}1000000.0"),
    ("max_token: 1", "3: models[0].max_token: unknown key; did you mean 'max_tokens'?"),
    ("API_KEY: x", "3: models[0].API_KEY: unknown key; did you mean 'api_key'?"),
    ("temperature: 2.1", "16: models[0].temperature: expected a number from 0 to 2; got 2.1"),
    ("temperature: hot", "16: models[0].temperature: expected a number from 0 to 2; got 'hot'"),
    ("top_p: -0.1", "10: models[0].top_p: expected a number from 0 to 1; got -0.1"),
    ("top_p: .nan", "10: not a number, or not true or false, although YAML reads it as float; quote it"),
    ("direct: 'true'", "11: models[0].direct: expected true or false; got 'true'"),
    ("can_stream: 1", "15: models[0].can_stream: expected true or false; got 1"),
    (
        "format: claude",
        "11: models[0].format: expected one of anthropic, openai, openai-chat, openai-responses, gemini; got 'claude'",
    ),
    (
        "reasoning_effort: hgih",
        "21: models[0].reasoning_effort: "
        "expected one of none, minimal, low, medium, high, xhigh, max; got 'hgih'",
    ),
    ("provider: depseek", "13: models[0].provider: unknown provider; did you mean 'deepseek'?"),
    ("provider: zzz", "13: models[0].provider: unknown provider; known are deepseek, generic"),
    ("provider: 5", "13: models[0].provider: expected a provider's name; got 5, which needs quotes"),
    ("provider: ''", "13: models[0].provider: expected a provider's name; got an empty text"),
    (
        'provider: "a\\nb"',
        "13: models[0].provider: expected a provider's name; got one with control characters or line breaks",
    ),
    (
        "model_name: ' x'",
        "15: models[0].model_name: expected a model name of at most 256 characters without spaces around it",
    ),
    ("quirks: {knwon: 1}", "19: models[0].quirks.knwon: unknown quirk; known are known"),
    ("quirks: yes please", "11: models[0].quirks: expected a mapping of quirks; got 'yes please'"),
    ("extra_body: [1]", "15: models[0].extra_body: expected a mapping of body fields; got a list"),
    ("extra_headers: x", "18: models[0].extra_headers: expected a mapping of header names to texts; got 'x'"),
    (
        "extra_headers: {a b: c}",
        "19: models[0].extra_headers.a b: 'a b' is not a header name; use letters, digits and '-'",
    ),
    (
        "extra_headers: {Host: c}",
        "19: models[0].extra_headers.Host: the header 'Host' is set by the proxy itself; remove it",
    ),
    (
        "extra_headers: {X-A: a, x-a: b}",
        "27: models[0].extra_headers.x-a: the header 'x-a' stands here twice, in different case; keep one",
    ),
    (
        "extra_headers: {A: 1}",
        "22: models[0].extra_headers.A: expected a text as the header's value; quote it",
    ),
    (
        'extra_headers: {A: "b\\r\\nc: d"}',
        "22: models[0].extra_headers.A: a header's value cannot hold line breaks or control characters",
    ),
    (
        "aliases: {a: b}",
        "12: models[0].aliases: expected a list of texts, each a model id or a glob; got a mapping",
    ),
    ("aliases: [a, 5]", "16: models[0].aliases[1]: expected a model id or a glob; got 5, which needs quotes"),
    ("aliases: [a, a]", "16: models[0].aliases[1]: 'a' stands here twice; keep one"),
    ("fallback: m", "13: models[0].fallback: an entry cannot be its own fallback; remove it"),
    ("fallback: [n]", "14: models[0].fallback[0]: no entry has the model_id 'n'; known are m"),
    (
        "pricing: {input: -1}",
        "20: models[0].pricing.input: expected USD per million tokens from 0 to 1000000; got -1",
    ),
    ("pricing: {inptu: 1}", "13: models[0].pricing.inptu: unknown key; did you mean 'input'?"),
    ("pricing: 3", "12: models[0].pricing: expected a mapping of prices; got 3"),
    (
        "timeouts: {idle_s: 0}",
        "22: models[0].timeouts.idle_s: expected a number of seconds from 0.001 to 86400; got 0",
    ),
    ("timeouts: {idle: 5}", "14: models[0].timeouts.idle: unknown key; did you mean 'idle_s'?"),
    ("vision: maybe", "11: models[0].vision: expected true or false; got 'maybe'"),
    ("hooks: 5", "10: models[0].hooks: expected a list of texts, each the name of a hook file; got 5"),
    (
        "api_key: 12345",
        "12: models[0].api_key: expected a key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME} as one line of text; "
        "quote it",
    ),
    (
        "api_key: Bearer ${KEY}",
        f"12: models[0].api_key: {WHOLE_REFERENCE}",
    ),
    (
        "api_key: $KEY",
        f"12: models[0].api_key: {WHOLE_REFERENCE}",
    ),
    ("api_key: sk-schlüssel", "12: models[0].api_key: expected a key of printable ASCII characters"),
    (
        "omit: [metadata]",
        "3: models[0].omit: means something for a direct entry only, and this one is translated; remove it",
    ),
    ("model_id: n", "3: the key 'model_id' stands here and on line 1; keep one"),
    ("extra_body: {a: !!binary aGk=}", "19: the tag !!binary is not supported; remove it"),
    ("extra_body: {a: !x {}}", "19: the tag !x is not supported; remove it"),
    ("extra_body: &a {b: *a}", "15: an anchor that contains itself; write the value out"),
    ("extra_body: {[a]: 1}", "16: a list or mapping as a key; keys are texts"),
    ("<<: 5", "7: '<<' takes a mapping or a list of mappings"),
]


@pytest.mark.parametrize(("line", "fault"), LINES, ids=[line for line, _ in LINES])
def test_fault_of_one_line(line: str, fault: str) -> None:
    assert faults(f"{HEAD}  {line}\n") == [f"models.yaml:3:{fault}"]


TRANSLATED_ONLY = "means something for a translated entry only, and this one is direct; "


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("can_stream: false", f"can_stream: {TRANSLATED_ONLY}remove it"),
        (
            "reasoning_effort: high",
            f"reasoning_effort: {TRANSLATED_ONLY}use extra_body: {{output_config: {{effort: high}}}}",
        ),
        ("vision: true", f"vision: {TRANSLATED_ONLY}remove it"),
        ("quirks: {known: 1}", f"quirks: {TRANSLATED_ONLY}use omit, extra_body or extra_headers"),
    ],
)
def test_translated_keys_of_a_direct_entry(line: str, fault: str) -> None:
    for mode in ("direct: true", "format: anthropic"):
        assert faults(f"{HEAD}  {mode}\n  {line}\n") == [f"models.yaml:4:3: models[0].{fault}"]
    assert only(f"{HEAD}  direct: true\n  can_stream: true\n").can_stream


@pytest.mark.parametrize("field", ["model", "messages", "max_tokens"])
def test_a_needed_field_cannot_be_omitted(field: str) -> None:
    line = f"models.yaml:4:16: models[0].omit[1]: '{field}' cannot be omitted: "
    found = faults(f"{HEAD}  direct: true\n  omit: [a, {field}]\n".replace("omit: [a", "omit: [ab"))
    assert found == [line.replace(":16:", ":14:") + "no Messages request is valid without it"]


BASE = "models.yaml:2:13: models[0].api_base: "


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        (
            "ftp://x",
            "expected an http:// or https:// address, or builtin:demo; got one that starts with neither",
        ),
        (
            "sk-secret",
            "expected an http:// or https:// address, or builtin:demo; got one that starts with neither",
        ),
        ("5", "expected an http:// or https:// address, or builtin:demo; got 5"),
        (
            "https://a b",
            "expected an http:// or https:// address, or builtin:demo; "
            "got a text with spaces or special characters",
        ),
        (
            "https://",
            "expected an address with a host and a port above 0, such as https://api.example.com/v1",
        ),
        (
            "https://:80",
            "expected an address with a host and a port above 0, such as https://api.example.com/v1",
        ),
        (
            "https://a:0",
            "expected an address with a host and a port above 0, such as https://api.example.com/v1",
        ),
        ("https://a:99999", "expected an address with a valid host and port"),
        ("https://[::1", "expected an address with a valid host and port"),
        ("https://user:secret@a", "credentials do not belong into the address; use api_key"),
        ("https://a/#b", "an address with '#' has a part that is never sent; remove it"),
        (
            "https://a/?key=secret",
            "expected an address without a query (only Azure's ?api-version= is taken); use extra_body",
        ),
        (
            "https://a/v1/chat/completions",
            "expected the base, to which the proxy adds the path; remove /chat/completions at its end",
        ),
        (
            "https://a/v1/messages/",
            "expected the base, to which the proxy adds the path; remove /messages at its end",
        ),
    ],
)
def test_invalid_address(base: str, fault: str) -> None:
    assert faults(f"- model_id: m\n  api_base: {base}\n") == [BASE + fault]


@pytest.mark.parametrize(
    ("base", "kept"),
    [
        ("https://a.example/v1/", "https://a.example/v1"),
        ("HTTPS://a.example", "HTTPS://a.example"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://r.example/deployments/d?api-version=2026-01-01", None),
        ("builtin:demo", None),
    ],
)
def test_valid_addresses(base: str, kept: str | None) -> None:
    assert only(f"- model_id: m\n  api_base: {base}\n").api_base == (kept or base)


#: Whole files -> all their faults.
FILES: list[tuple[str, str, list[str]]] = [
    (
        "empty",
        "",
        [": the file is empty; run 'claude-proxy add', or write a list of entries"],
    ),
    (
        "comments",
        "# nothing\n---\n",
        [": the file is empty; run 'claude-proxy add', or write a list of entries"],
    ),
    (
        "text",
        "hello",
        [":1:1: expected a list of entries or a mapping with 'settings' and 'models'; got 'hello'"],
    ),
    ("empty list", "models: []", [":1:9: models: expected at least one entry; got an empty list"]),
    ("no models", "settings:\n  port: 1\n", [":1:1: models: expected a list of entries; got nothing"]),
    (
        "unknown top",
        "modles: []\nmodels:\n" + HEAD,
        [":1:1: modles: unknown key; did you mean 'models'?"],
    ),
    (
        "settings",
        "settings: {prot: 1, port: 2}\nmodels:\n" + HEAD,
        [":1:12: settings.prot: unknown setting"],
    ),
    (
        "settings list",
        "settings: [a]\nmodels:\n" + HEAD,
        [":1:11: settings: expected a mapping of settings; got a list"],
    ),
    (
        "entry",
        "- just text\n- {}\n",
        [
            ":1:3: models[0]: expected a mapping with model_id and api_base; got 'just text'",
            ":2:3: models[1]: api_base is missing; every entry needs one",
            ":2:3: models[1]: model_id is missing; every entry needs one",
        ],
    ),
    (
        "twice",
        HEAD + "\n" + HEAD + HEAD,
        [
            ":4:13: models[1].model_id: 'm' is the id of the entry on line 1 too; rename one",
            ":6:13: models[2].model_id: 'm' is the id of the entry on line 1 too; rename one",
        ],
    ),
    (
        "alias is an id",
        HEAD + "- model_id: n\n  api_base: builtin:demo\n  aliases: m\n",
        [":5:12: models[1].aliases: 'm' is the id of the entry on line 1; rename one"],
    ),
    (
        "at odds",
        HEAD + "  direct: true\n  format: openai\n  context: 8k\n  max_input_tokens: 9k\n",
        [
            ":4:11: models[0].format: 'openai' and direct: true are at odds; keep one of the two",
            ":5:12: models[0].context: 8000 and max_input_tokens: 9000 are at odds; keep one of the two",
        ],
    ),
    (
        "token",
        HEAD + "  api_key: k\n  api_keys: [a]\n  access_token: t\n",
        [
            ":4:3: models[0].api_keys: api_key stands there too; move its key into this list",
            ":5:3: models[0].access_token: api_key stands there too; keep one of the two",
            ":5:3: models[0].access_token: api_keys stands there too; keep one of the two",
        ],
    ),
    ("reference", HEAD + "  access_token: a ${T}\n", [f":3:17: models[0].access_token: {WHOLE_REFERENCE}"]),
    (
        "demo",
        "- model_id: m\n  api_base: builtin:demo\n  direct: true\n  api_key: k\n  provider: generic\n",
        [
            ":2:13: models[0].api_base: builtin:demo speaks Chat Completions; remove direct or format",
            ":4:3: models[0].api_key: builtin:demo takes none; remove it",
            ":5:3: models[0].provider: builtin:demo takes none; remove it",
        ],
    ),
    (
        "all at once",
        HEAD
        + "  max_tokens: x\n  api_key: $K\n  fallback: [z]\n  quirks: {q: 1}\n- model_id: m\n  api_bas: y\n",
        [
            f":3:15: models[0].max_tokens: {TOKENS}'x'",
            f":4:12: models[0].api_key: {WHOLE_REFERENCE}",
            ":5:14: models[0].fallback[0]: no entry has the model_id 'z'; known are m",
            ":6:15: models[0].quirks.q: unknown quirk; known are known",
            ":7:13: models[1].model_id: 'm' is the id of the entry on line 1 too; rename one",
            ":8:3: models[1].api_bas: unknown key; did you mean 'api_base'?",
        ],
    ),
    (
        "syntax",
        HEAD + "   x: 1\n",
        [":3:5: not valid YAML: mapping values are not allowed here; repair this line or the one above it"],
    ),
    (
        "tab",
        "- model_id: m\n\tapi_base: x\n",
        [":2:1: not valid YAML: a tab, where YAML wants blanks; repair this line or the one above it"],
    ),
    (
        "anchor",
        "- *nowhere\n",
        [":1:3: not valid YAML: found undefined alias 'nowhere'; repair this line or the one above it"],
    ),
    (
        "two documents",
        "--- []\n--- []\n",
        [":2:1: not valid YAML: but found another document; repair this line or the one above it"],
    ),
    (
        "control character",
        "- model_id: m\n  x: \x07\n",
        [":2:6: not valid YAML: a control character, which YAML forbids; remove it"],
    ),
    (
        "a version that does not exist",
        "%YAML 1.9\n---\n" + HEAD,
        [
            ":1:1: not valid YAML: a directive or an escape that cannot be understood; "
            "remove '%YAML' and check backslashes"
        ],
    ),
    (
        "an escape beyond Unicode",
        HEAD + '  model_name: "\\U00110000"\n',
        [
            ":1:1: not valid YAML: a directive or an escape that cannot be understood; "
            "remove '%YAML' and check backslashes"
        ],
    ),
    (
        "bomb",
        "- &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"- &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcd", "bcde", strict=True)),
        [":5:3: anchors expand to more than 50000 values"]
        + [
            f":{n + 1}:3: models[{n}]: expected a mapping with model_id and api_base; got a list"
            for n in range(4)
        ],
    ),
    (
        "nested",
        HEAD + "  extra_body: {a: " + "[" * 64 + "]" * 64 + "}\n",
        [":3:81: nested deeper than 64 levels; flatten it"],
    ),
    ("nested beyond the parser", "[" * 1000, [":1:1: nested deeper than 64 levels; flatten it"]),
    ("large", "#" * (MAX_BYTES + 1), [": larger than 512 KiB; a models.yaml is a few"]),
]


@pytest.mark.parametrize(("text", "expected"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_faults_of_a_file(text: str, expected: list[str]) -> None:
    assert sorted(faults(text)) == sorted(f"models.yaml{line}" for line in expected)


def test_faults_are_in_the_order_of_the_file() -> None:
    places = [
        int(line.split(":")[1]) for line in faults({name: text for name, text, _ in FILES}["all at once"])
    ]
    assert places == sorted(places)


def test_no_message_holds_a_key() -> None:
    text = (
        "- model_id: m\n  api_base: sk-PLANTED\n  api_key: [sk-PLANTED]\n"
        "  extra_headers: {x: [sk-PLANTED], y: 5}\n"
        "- model_id: n\n  api_base: https://u:PLANTED@h/\n  api_key: ${sk-PLANTED}\n"
        '- model_id: o\n  api_base: https://h/?k=PLANTED\n  api_key: "PLANTED\\n"\n'
        '  extra_headers: {"a": "\\nPLANTED"}\n'
        "- model_id: p\n  api_base: https://h/\n  api_key: PLANTEDé\n"
    )
    lines = faults(text)
    assert len(lines) == 10
    assert "PLANTED" not in "".join(lines)


def test_a_key_with_a_line_break_gives_one_line() -> None:
    assert faults(HEAD + '  "a\\nb": 1\n')[0].startswith("models.yaml:3:3: models[0].a\\nb: unknown key; ")
