"""Asks a running `training serve` with the real `openai` package, and fails loudly.

    pip install openai==3.54.0
    cargo run --release -p training -- serve --weights model/weights/nano --port 8000
    python training/tests/python/openai_client.py http://127.0.0.1:8000/v1

`cargo test` asks the same over plain TCP (training/tests/serve); this shows that OpenAI's own client, which the harnesses
use or imitate, reads the answers as well. The key, where the server wants one, is taken from OPENAI_API_KEY.
"""

import argparse
import base64
import os
import struct
import zlib

import openai


def png(width: int, height: int) -> str:
    """A gradient as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in (x % 256, y % 256, 90)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def image(width: int, height: int) -> dict:
    return {"type": "image_url", "image_url": {"url": png(width, height)}}


def refused(kind: type, ask, says: str) -> None:
    """The call must fail with this exception of the package, and the server's words in it."""
    try:
        ask()
    except kind as error:
        assert says in str(error), f"{error} lacks {says!r}"
        return
    raise AssertionError(f"expected {kind.__name__}: {says}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://HOST:PORT/v1")
    url = parser.parse_args().url
    client = openai.OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=0, timeout=600)

    names = [model.id for model in client.models.list()]
    assert len(names) == 1, names
    chat = lambda **more: client.chat.completions.create(model=names[0], **more)  # noqa: E731
    text = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where are we?"}]

    answer = chat(messages=text, temperature=0, max_tokens=8)
    assert answer.object == "chat.completion" and answer.model == names[0], answer
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage
    print(f"text: {answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out")

    two = [{"role": "user", "content": [image(320, 200), {"type": "text", "text": " and "}, image(64, 64)]}]
    seen = chat(messages=two, temperature=0, max_completion_tokens=8)
    # Beside the words around them, images are tokens.
    words = [{"role": "user", "content": " and "}]
    assert seen.usage.prompt_tokens > chat(messages=words, max_tokens=1).usage.prompt_tokens + 8, seen.usage
    print(f"two images: {seen.usage.prompt_tokens} tokens in, {seen.usage.completion_tokens} out")

    how = {"messages": two, "temperature": 0.8, "top_p": 0.9, "seed": 3, "max_tokens": 24, "n": 2}
    whole = chat(**how)
    streamed, reasons, usage = ["", ""], [None, None], None
    for chunk in chat(**how, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert streamed == [choice.message.content for choice in whole.choices], (streamed, whole)
    assert reasons == [choice.finish_reason for choice in whole.choices], (reasons, whole)
    assert usage == whole.usage, (usage, whole.usage)
    print("stream: the same answers in pieces")

    if first := answer.choices[0].message.content:
        cut = chat(messages=text, temperature=0, max_tokens=8, stop=[first[-1]]).choices[0]
        assert first[-1] not in cut.message.content and cut.finish_reason == "stop", cut
        print("stop string: not seen")

    url = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    refused(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": [url]}]), "nothing is fetched")
    refused(openai.BadRequestError, lambda: chat(messages=text, logprobs=True), "logprobs")
    other = lambda: client.chat.completions.create(model="another", messages=text)  # noqa: E731
    refused(openai.NotFoundError, other, "expected " + names[0])
    print("refusals: exceptions of the right kind")


if __name__ == "__main__":
    main()
