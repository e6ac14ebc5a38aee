"""What a step of training a LoRA adapter costs with transformers and peft: the yardstick of `training bench train`.

    python training/baselines/peft_train.py [--shape 2b] [--layers N] [--rank 16] [--tokens 512] [--steps 3]
        [--threads 2] [--checkpointing] [--dtype f32|bf16] [--device cpu|cuda]
    python training/baselines/peft_train.py [--runs 3] [--dtype f32|bf16] --compare
        "target/release/training bench train --shape 2b --layers 4 --quant f32 --rank 16 --tokens 512"

Prints one JSON line with the keys of `training bench train`, but `dtype` where that has `quant`. With --compare it runs
the command and itself in turn, each time as a new process, and prints a table of medians and their ratio. The options
in the command hold for both; beside it stand --runs and --dtype alone. Both get the same number of threads from the
environment.

Alike in both: the shape of a published Qwen3-VL-Instruct, or its first decoder layers, with random weights made from
the config; the vision tower in memory, without an image to read; one sequence of the same token ids; an adapter of
rank r, alpha 2r, without dropout beside q, k, v, o, gate, up and down of the decoder; the mean loss over the second
half, logits of those rows alone; AdamW without decay; a step that is not timed before those that are.

Not alike: the random numbers, and B, which is zero at the start as peft has it and random there. So losses do not
compare; both begin near the log of the vocabulary's size. Matrices may be quantized there, not here. Here attention and
AdamW are torch's fused ones, as transformers' own trainer chooses; beside a bf16 model peft keeps the adapter in f32.
peak_mib is the most memory that the process held, libraries included: here since the model is whole, there since the
process began, which is to say with reading the weights. On a GPU it is the host's, and device_peak_mib the GPU's.

Exit status: 0; 1 if a step or a command failed, or the two did not do the same work; 2 for bad options.
"""

import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Hidden size, decoder layers, heads, feed-forward size, whether the head is the embedding.
DECODERS = {
    "2b": (2048, 28, 16, 6144, True),
    "4b": (2560, 36, 32, 9728, True),
    "8b": (4096, 36, 32, 12288, False),
}
# Depth, width, feed-forward size, layers whose features the decoder gets.
SMALL_TOWER, LARGE_TOWER = (24, 1024, 4096, [5, 11, 17]), (27, 1152, 4304, [8, 16, 24])
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 1e-4
# What torch's and our thread pools read.
THREAD_VARIABLES = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"]
# Values that two runs of the same work share.
WORK = ["shape", "layers", "rank", "trained_parameters", "tokens", "checkpointing", "threads", "device"]


def config(shape: str, layers: int | None) -> dict[str, Any]:
    """The published config, with the first `layers` decoder layers alone."""
    hidden, depth, heads, ffn, tied = DECODERS[shape]
    tower_depth, width, tower_ffn, deepstack = LARGE_TOWER if shape == "8b" else SMALL_TOWER
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    text = {
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers or depth,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "rope_parameters": rope,
    }
    vision = {
        "depth": tower_depth,
        "hidden_size": width,
        "intermediate_size": tower_ffn,
        "num_heads": 16,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": hidden,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": deepstack,
    }
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": tied}


def forget_peak() -> None:
    """Lets the peak begin anew at what is held now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Most memory that this process held since then, its files in memory included."""
    held = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if held is None:
        raise SystemExit("peft_train: /proc/self/status: no VmHWM")
    return round(int(held[1]) / 1024, 1)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Trains an adapter for a few steps: forward, backward and optimizer over one sequence of text."""
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(args.threads)) | {"HF_HUB_OFFLINE": "1"}
    # Only now: torch reads the number of threads when it is loaded, and --compare does without it.
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, Qwen3VLConfig

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device, dtype = torch.device(args.device), {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    shape = Qwen3VLConfig(**config(args.shape, args.layers))
    with device:
        base = AutoModelForImageTextToText.from_config(shape, dtype=dtype, attn_implementation="sdpa")
    # A head that is the embedding has been a matrix of its own until here: making weights is not what is measured.
    forget_peak()
    lora = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0, target_modules=TARGETS)
    model = get_peft_model(base, lora).train()
    if args.checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)

    ids = torch.tensor([[5 + i * 7919 % 50_000 for i in range(args.tokens)]], device=device)
    rows = torch.arange(args.tokens // 2, args.tokens - 1, device=device)
    seconds, losses = [], []
    for step in range(args.steps + 1):
        began = time.perf_counter()
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=rows).logits[0]
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[0, rows + 1])
        losses.append(loss.item())
        loss.backward()
        idle = [name for name, value in trained.items() if value.grad is None]
        if idle or not math.isfinite(losses[-1]):
            raise SystemExit(f"peft_train: step {step}: loss {losses[-1]}, without a gradient: {idle}")
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step > 0:
            seconds.append(time.perf_counter() - began)
    median = sorted(seconds)[len(seconds) // 2]
    line = {
        "shape": args.shape,
        "layers": shape.text_config.num_hidden_layers,
        "dtype": args.dtype,
        "rank": args.rank,
        "trained_parameters": sum(value.numel() for value in trained.values()),
        "tokens": args.tokens,
        "checkpointing": args.checkpointing,
        "threads": args.threads,
        "device": args.device,
        "step_s": round(median, 3),
        "tokens_per_s": round(args.tokens / median, 1),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "peak_mib": peak_mib(),
    }
    if device.type == "cuda":
        line["device_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return line


def run(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The JSON line of a command."""
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        line = json.loads(done.stdout)
        if not {*WORK, "step_s", "tokens_per_s", "peak_mib"} <= line.keys():
            raise ValueError(f"keys {sorted(line)}")
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"peft_train: {error}") from None
    except (ValueError, AttributeError) as error:
        message = f"expected the JSON line of `training bench train`, got {error}"
        raise SystemExit(f"peft_train: {shlex.join(command)}: {message}") from None
    return line


def compare(args: argparse.Namespace, command: list[str]) -> str:
    """Runs the command and this program in turn; the table of medians."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(args.threads))
    this = [sys.executable, __file__]
    for name in ("shape", "layers", "rank", "tokens", "steps", "threads", "dtype", "device"):
        if getattr(args, name) is not None:
            this += [f"--{name}", str(getattr(args, name))]
    if args.checkpointing:
        this.append("--checkpointing")
    ours, theirs = [], []
    for number in range(args.runs):
        ours.append(run(command, environment))
        theirs.append(run(this, environment))
        print(f"peft_train: run {number + 1} of {args.runs}: {ours[-1]} {theirs[-1]}", file=sys.stderr)
        for key in WORK:
            if ours[-1][key] != theirs[-1][key]:
                raise SystemExit(f"peft_train: {key}: {ours[-1][key]} of the command, {theirs[-1][key]} here")
    first = ours[0]
    keys = ["step_s", "tokens_per_s", "peak_mib"]
    medians = [[statistics.median(line[key] for line in lines) for key in keys] for lines in (ours, theirs)]
    table = [
        f"{first['shape']}, {first['layers']} layers, rank {first['rank']}, {first['tokens']} tokens, checkpointing "
        f"{'on' if first['checkpointing'] else 'off'}, {first['threads']} threads, {first['device']}; "
        f"medians of {args.runs} runs of {args.steps} steps, in turn\n",
        "| | weights | step, s | least to most | tokens/s | peak, MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, kind, lines, (step, rate, peak) in zip(("training", "peft"), ("quant", "dtype"), (ours, theirs), medians):
        steps = [line["step_s"] for line in lines]
        spread = f"{min(steps):.3f} to {max(steps):.3f}"
        table.append(f"| {name} | {lines[0].get(kind, '?')} | {step:.3f} | {spread} | {rate:.1f} | {peak:.0f} |")
    step, rate, peak = (b / a for a, b in zip(*medians))
    table.append(f"| peft / training | | {step:.2f} | | {rate:.2f} | {peak:.2f} |")
    return "\n".join(table)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Times transformers and peft at the work of `training bench train`.", allow_abbrev=False
    )
    parser.add_argument("--shape", choices=DECODERS, default="2b")
    parser.add_argument("--layers", type=int, metavar="N", help="first decoder layers alone; all without it")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512, help="one sequence; the loss is on the second half")
    parser.add_argument("--steps", type=int, default=3, help="timed, behind one that is not")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true", help="compute decoder layers again on the way back")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compare", metavar="COMMAND", help="`training bench train` with its options")
    parser.add_argument("--runs", type=int, default=3, metavar="K", help="of each side of a comparison")
    args = parser.parse_args()
    command = shlex.split(args.compare) if args.compare is not None else None
    if command is not None:
        for name in {*vars(args)} - {"compare", "runs", "dtype"}:
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"--compare: --{name} belongs into the command")
        # Defaults are the same there; --quant and whatever else it has are its own.
        said, _ = parser.parse_known_args(command)
        args = argparse.Namespace(**vars(said) | {"runs": args.runs, "dtype": args.dtype})
    counts = (args.layers or 1, args.rank, args.steps, args.threads, args.runs)
    if min(counts) < 1 or args.layers == 0 or args.tokens < 4:
        parser.error("--layers, --rank, --steps, --threads and --runs are at least 1, --tokens at least 4")
    if args.layers is not None and args.layers > DECODERS[args.shape][1]:
        parser.error(f"--layers: a {args.shape} has {DECODERS[args.shape][1]}, not {args.layers}")
    if command == []:
        parser.error("--compare: an empty command")
    print(json.dumps(measure(args)) if command is None else compare(args, command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
