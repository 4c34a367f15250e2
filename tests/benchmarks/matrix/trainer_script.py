"""One cell as a user writes it with HF's Trainer and HF PEFT: `trainer_script.py METHOD LR SEED MODEL DATA OUT`.

It stands for what the suite is compared with, so it takes the libraries as they come: their sequence classifier, their
collator, their defaults. DATA is a folder with train.csv and test.csv (text, label).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()

import numpy as np  # noqa: E402
from datasets import load_dataset  # noqa: E402
from peft import IA3Config, LoraConfig, PeftConfig, PrefixTuningConfig, get_peft_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

CONFIGS: dict[str, PeftConfig] = {
    "lora": LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]),
    "dora": LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"], use_dora=True),
    "ia3": IA3Config(
        task_type="SEQ_CLS",
        target_modules=r".*(key|value|\d\.output\.dense)",
        feedforward_modules=r".*\d\.output\.dense",
    ),
    "prefix": PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
}


def main(method: str, lr: float, seed: int, model_folder: str, data: Path, out: Path) -> None:
    """Train 120 steps of 32 texts of at most 64 tokens, score the test split, write what it took."""
    imported = time.perf_counter()
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    base = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=2)
    model = get_peft_model(base, CONFIGS[method])
    texts = load_dataset("csv", data_files={name: str(data / f"{name}.csv") for name in ("train", "test")})
    encoded = texts.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=64), batched=True)
    arguments = TrainingArguments(
        output_dir=str(out.parent / "trainer"),
        max_steps=120,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=100,
        learning_rate=lr,
        lr_scheduler_type="cosine",
        warmup_steps=12,
        seed=seed,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(
        model, arguments, train_dataset=encoded["train"], data_collator=DataCollatorWithPadding(tokenizer)
    )
    trainer.train()
    trained = time.perf_counter()
    found = trainer.predict(encoded["test"])
    right = found.predictions.argmax(-1) == found.label_ids
    seconds = {
        "importing": imported - STARTED,
        "training": trained - imported,
        "evaluating": time.perf_counter() - trained,
    }
    out.write_text(json.dumps({"accuracy": float(np.mean(right)), "items": len(right), "seconds": seconds}))


if __name__ == "__main__":
    name, rate, drawn, folder, texts_folder, result = sys.argv[1:]
    main(name, float(rate), int(drawn), folder, Path(texts_folder), Path(result))
