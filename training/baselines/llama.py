"""Decode and prefill of a GGUF file by llama.cpp beside ours, in turn: `python training/baselines/llama.py --help`.

llama.cpp is that of node-llama-cpp, built ahead for each processor: `npm install --ignore-scripts node-llama-cpp` in some folder,
`pip install gguf` for this. A random checkpoint (`training bench model --shape 2b` makes one) has no tokenizer, which llama.cpp
wants; a copy with names in place of tokens is written beside it. Same file, same threads, 256 tokens read and 24 written.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

import gguf

RUN = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
const [path, threads] = [process.argv[2], Number(process.argv[3])];
const llama = await getLlama({gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.fatal});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: 512, batchSize: 256, threads});
const ids = Array.from({length: 256}, (_, i) => 5 + i * 7 % 500);
let last;
// The first to warm up.
for (let round = 0; round < 2; round++) {
  const sequence = context.getSequence();
  const begun = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(ids);
  const read = performance.now();
  let written = 0;
  for await (const _ of sequence.evaluate([7], {temperature: 0})) if (++written >= 24) break;
  last = {prefill: 256e3 / (read - begun), decode: 24e3 / (performance.now() - read)};
  sequence.dispose();
}
console.log(JSON.stringify(last));
process.exit(0);
"""


def with_tokenizer(source: pathlib.Path, target: pathlib.Path) -> None:
    """A copy of a GGUF file with a name for each token."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "qwen3vl")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "tokenizer.", "general.architecture")):
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element)
    rows = next(t.shape[1] for t in reader.tensors if t.name == "token_embd.weight")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<t{i}>".encode() for i in range(rows)])
    writer.add_token_types([1] * int(rows))
    writer.add_token_merges(["< t"])
    writer.add_bos_token_id(int(rows) - 2)
    writer.add_eos_token_id(int(rows) - 1)
    for tensor in reader.tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="2b", help="2b, 4b or 8b")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", default="target/release/training")
    parser.add_argument("--node", type=pathlib.Path, required=True, help="folder with node_modules/node-llama-cpp")
    args = parser.parse_args()
    ours = [args.ours, "bench", "model", "--shape", args.shape, "--threads", str(args.threads)]
    subprocess.run(ours, check=True, stdout=subprocess.DEVNULL)  # makes the checkpoint
    file = pathlib.Path(f"target/bench/{args.shape}-q4_k_m/model.gguf")
    copy = args.node / f"{args.shape}.gguf"
    with_tokenizer(file, copy)
    script = args.node / "run.mjs"
    script.write_text(RUN)
    rounds = []
    for _ in range(args.rounds):
        line = json.loads(subprocess.run(ours, check=True, capture_output=True, text=True).stdout)
        theirs = subprocess.run(["node", script, copy, str(args.threads)], check=True, capture_output=True, text=True)
        peer = json.loads(theirs.stdout.splitlines()[-1])
        both = {name: (line[f"{name}_tokens_per_s"], peer[name]) for name in ("prefill", "decode")}
        rounds.append(both)
        print({name: f"ours {a:.1f}, llama.cpp {b:.1f} tokens/s" for name, (a, b) in both.items()}, flush=True)
    for name in ("prefill", "decode"):
        print(f"{name}: ours over llama.cpp {statistics.median(a / b for a, b in (r[name] for r in rounds)):.2f}")


if __name__ == "__main__":
    main()
