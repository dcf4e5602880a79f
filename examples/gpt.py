"""A small GPT is trained on this project's documents, character by character, and draws a text.

A training step is one graph: forward, backward, clipping, AdamW and the schedule of its learning rate. The text is
drawn from a graph, too.
"""

import argparse
from pathlib import Path

import duograd as dg
import numpy as np
from duograd import nn
from duograd.nn import functional as F

WINDOW = 64


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.permute(0, 2, 1, 3).reshape(n, t, width))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, letters, width=96, depth=3, heads=4):
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(WINDOW, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

    def forward(self, text):
        x = self.letter(text) + self.place(dg.arange(text.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def main(steps=300, batch=16, letters=200):
    """Train; returns the first and the last mean loss of 20 steps, and a text."""
    dg.manual_seed(0)
    rng = np.random.default_rng(0)
    corpus = "\n".join(p.read_text() for p in sorted((Path(__file__).parent.parent / "docs").glob("*.md")))
    alphabet = sorted(set(corpus))
    number = {c: k for k, c in enumerate(alphabet)}
    codes = np.array([number[c] for c in corpus])
    model = GPT(len(alphabet))
    optimizer = dg.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = dg.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)

    @dg.function
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss

    losses = []
    for k in range(steps):
        starts = rng.integers(0, len(codes) - WINDOW - 1, batch)
        rows = np.stack([codes[s : s + WINDOW + 1] for s in starts])
        losses.append(step(dg.tensor(rows[:, :-1]), dg.tensor(rows[:, 1:])).item())
        if k % 50 == 49:
            print(f"step {k + 1}: loss {np.mean(losses[-50:]):.3f}")

    @dg.function
    @dg.no_grad()
    def next_letter(window):
        return dg.multinomial(dg.softmax(model(window)[0, -1] / 0.7, axis=-1), 1)

    text = codes[:WINDOW].tolist()
    for _ in range(letters):
        text.append(next_letter(dg.tensor([text[-WINDOW:]])).item())
    written = "".join(alphabet[k] for k in text[WINDOW:])
    print(written)
    return np.mean(losses[:20]), np.mean(losses[-20:]), written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
