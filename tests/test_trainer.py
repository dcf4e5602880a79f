"""Training in one call: equal to the loop that it stands for, in both modes; callbacks, metrics, data, summaries."""

import subprocess
import sys

import duograd as dg
import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64")
MODES = ("eager", "graph")


def made(**kwargs):
    dg.manual_seed(3)
    model = dg.nn.Sequential(
        dg.nn.Linear(6, 8), dg.nn.BatchNorm1d(8), dg.nn.ReLU(), dg.nn.Dropout(0.2), dg.nn.Linear(8, 2)
    )
    settings = {"loss": dg.nn.CrossEntropyLoss(), "optimizer": dg.optim.Adam(model.parameters(), lr=0.02)}
    return dg.nn.Trainer(model, **{**settings, "metrics": ["accuracy"], **kwargs})


@pytest.mark.parametrize("mode", MODES)
def test_fit_is_the_loop_that_it_stands_for(mode):
    trainer = made(mode=mode)
    loader = dg.data.DataLoader(dg.data.TensorDataset(X, Y), 16, shuffle=True, seed=5)
    history = trainer.fit(loader, epochs=3, validation_data=(X, Y), verbose=False)

    other = made()
    model, optimizer, loss_fn = other.model, other.optimizer, other.loss
    loader = dg.data.DataLoader(dg.data.TensorDataset(X, Y), 16, shuffle=True, seed=5)
    for epoch in range(3):
        model.train()
        total = right = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            output = model(x)
            loss = loss_fn(output, y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y.numpy())
            right += float((output.argmax(axis=1) == y).sum().item())
        assert history["loss"][epoch] == pytest.approx(total / 50, abs=1e-12)
        assert history["accuracy"][epoch] == pytest.approx(right / 50, abs=1e-7)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(trainer.model.state_dict()[name].numpy(), value.numpy())
    found = trainer.evaluate((X, Y), batch_size=20)
    assert found["accuracy"] == pytest.approx(history["val_accuracy"][-1])
    assert found["loss"] == pytest.approx(history["val_loss"][-1])
    model.eval()
    np.testing.assert_array_equal(
        trainer.predict(X, batch_size=50).numpy(), model(dg.tensor(X)).detach().numpy()
    )
    assert trainer.predict(loader, targets=True).shape == (50, 2)


def test_modes_switch_between_fits_and_modules_keep_their_own_training_mode():
    trainer = made()
    trainer.model[1].eval()
    trainer.fit((X, Y), epochs=1, verbose=False)
    trainer.mode = "eager"
    trainer.fit((X, Y), epochs=1, verbose=False)
    assert trainer.mode == "eager"
    assert trainer.epoch == 2
    assert [m.training for m in trainer.model] == [True, False, True, True, True]


def test_means_weigh_batches_by_their_samples():
    model = dg.nn.Identity()
    trainer = dg.nn.Trainer(model, loss=dg.nn.MSELoss(), metrics={"far": lambda out, y: (out - y).max()})
    found = trainer.evaluate((X[:, :1], X[:, :1] * 0), batch_size=32)
    assert found["loss"] == pytest.approx(float((X[:, 0] ** 2).mean()), rel=1e-5)
    assert found["far"] == pytest.approx((X[:32, 0].max() * 32 + X[32:, 0].max() * 18) / 50, rel=1e-5)


def test_named_metrics():
    scores = dg.tensor([[[0.1, 2.0], [0.5, 1.0]], [[3.0, 0.0], [1.0, 0.5]]])
    from duograd.interop.metrics import METRICS

    assert METRICS["accuracy"](scores, dg.tensor([[1, 0], [0, 0]])).item() == 0.75
    assert METRICS["binary_accuracy"](dg.tensor([0.3, -2.0]), dg.tensor([1.0, 1.0])).item() == 0.5
    a, b = dg.tensor([1.0, 4.0]), dg.tensor([2.0, 1.0])
    assert METRICS["mean_absolute_error"](a, b).item() == 2
    assert METRICS["mean_squared_error"](a, b).item() == 5
    with pytest.raises(dg.errors.ShapeError, match="differ in shape"):
        METRICS["mean_squared_error"](a, b.reshape(2, 1))
    with pytest.raises(dg.errors.ShapeError, match="binary_accuracy"):
        METRICS["accuracy"](a, b)


def test_stopping_early_brings_the_best_state_back():
    trainer = made(metrics=[])
    kept, stop = {}, dg.nn.callbacks.EarlyStopping("loss", patience=1, min_delta=10.0)

    def remember(trainer, epoch, logs):
        kept[epoch] = trainer.model[0].weight.detach().numpy().copy()

    history = trainer.fit((X, Y), epochs=9, callbacks=[remember, stop], verbose=False)
    assert len(history["loss"]) == stop.stopped_epoch == trainer.epoch == 3
    np.testing.assert_array_equal(trainer.model[0].weight.detach().numpy(), kept[1])
    assert stop.best == history["loss"][0]


def test_schedules_step_by_epoch_and_batch():
    trainer = made()
    halves = dg.optim.lr_scheduler.StepLR(trainer.optimizer, step_size=1, gamma=0.5)
    trainer.fit((X, Y), epochs=2, callbacks=[dg.nn.callbacks.Schedule(halves)], verbose=False)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    trainer.fit((X, Y), epochs=1, callbacks=[dg.nn.callbacks.Schedule(halves, every="batch")], verbose=False)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.00125)
    plateau = dg.optim.lr_scheduler.ReduceLROnPlateau(
        trainer.optimizer, patience=0, threshold=10.0, threshold_mode="abs"
    )
    watch = dg.nn.callbacks.Schedule(plateau, monitor="loss")
    trainer.fit((X, Y), epochs=2, callbacks=[watch], verbose=False)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.000125)


def test_checkpoints_are_kept_when_better(tmp_path):
    trainer = made()
    save = dg.nn.callbacks.ModelCheckpoint(tmp_path / "at-{epoch:02d}.safetensors")
    best = dg.nn.callbacks.ModelCheckpoint(tmp_path / "best.safetensors", monitor="loss", mode="max")
    history = trainer.fit((X, Y), epochs=3, callbacks=[save, best], verbose=False)
    at = [dg.load(tmp_path / f"at-{k:02d}.safetensors")["0.weight"].numpy() for k in (1, 2, 3)]
    np.testing.assert_array_equal(at[2], trainer.model[0].weight.detach().numpy())
    worst = int(np.argmax(history["loss"]))
    np.testing.assert_array_equal(dg.load(tmp_path / "best.safetensors")["0.weight"].numpy(), at[worst])
    wrong = dg.nn.callbacks.ModelCheckpoint(str(tmp_path / "{nothing}"))
    with pytest.raises(dg.errors.ArgumentError, match="cannot be filled"):
        trainer.fit((X, Y), callbacks=[wrong], verbose=False)


def test_a_failing_callback_leaves_modules_in_their_mode():
    trainer = made()
    trainer.model.eval()

    class Stop(dg.nn.callbacks.Callback):
        def on_batch_end(self, trainer, batch, logs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit((X, Y), callbacks=[Stop()], verbose=False)
    assert not any(m.training for m in trainer.model.modules())


def test_models_of_several_inputs_and_results():
    class Two(dg.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = dg.nn.Linear(6, 2), dg.nn.Linear(6, 2)

        def forward(self, x, z):
            return {"sum": self.a(x) + self.b(z), "x": self.a(x)}

    model = Two()
    loss = lambda out, y: dg.nn.functional.cross_entropy(out["sum"], y)
    trainer = dg.nn.Trainer(model, loss, dg.optim.SGD(model.parameters(), lr=0.1), clip_norm=0.5)
    before = model.a.weight.detach().numpy().copy()
    history = trainer.fit((X, X * 2, Y), epochs=2, verbose=False)
    assert history["loss"][1] < history["loss"][0]
    assert np.abs(model.a.weight.detach().numpy() - before).max() > 0
    out = trainer.predict((X, X))
    assert out["sum"].shape == out["x"].shape == (50, 2)


def test_steps_are_traced_once_for_each_batch_size():
    trainer = made()
    trainer.fit((X, Y), epochs=3, batch_size=20, validation_data=(X, Y), verbose=False)
    assert len(trainer._train.variants) == 2  # 20 and the last 10
    assert len(trainer._evaluate.variants) == 2


def test_a_line_for_each_epoch_where_there_is_no_terminal(capsys):
    made().fit((X, Y), epochs=2, validation_data=(X, Y))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/2: loss ")
    assert "val_accuracy" in second


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: dg.nn.Trainer(3), "model=3 is an integer"),
        (lambda t: dg.nn.Trainer(t.model, loss="mse"), "loss='mse' is a text"),
        (lambda t: dg.nn.Trainer(t.model, optimizer="adam"), "optimizer='adam' is a text"),
        (lambda t: dg.nn.Trainer(t.model, metrics=["acc"]), "no metric 'acc'.*"),
        (lambda t: dg.nn.Trainer(t.model, metrics=["accuracy"] * 2), "two numbers are named 'accuracy'"),
        (lambda t: dg.nn.Trainer(t.model, metrics=[3]), "a metric is a int"),
        (lambda t: dg.nn.Trainer(t.model, clip_norm=0), "clip_norm=0 is not above 0"),
        (lambda t: dg.nn.Trainer(t.model).fit((X, Y)), "the trainer has no loss"),
        (lambda t: t.fit(X), "takes no ndarray as data"),
        (lambda t: t.fit((X,)), "a batch has no target"),
        (lambda t: t.fit((X, Y), epochs=-1), "epochs=-1"),
        (lambda t: t.fit((x for x in ()), epochs=2), "used up after one"),
        (lambda t: t.fit((x for x in ()), epochs=1), "no batches"),
        (lambda t: t.fit((X, Y), callbacks=[dg.nn.callbacks.EarlyStopping]), "callback is a EarlyStopping"),
        (lambda t: t.fit((X, Y), callbacks=[dg.nn.callbacks.EarlyStopping()]), "no 'val_loss' to watch"),
        (lambda t: dg.nn.callbacks.EarlyStopping(mode="auto"), "mode='auto' is unknown"),
        (lambda t: dg.nn.callbacks.EarlyStopping(patience=-1), "patience=-1"),
        (lambda t: dg.nn.callbacks.Schedule(3), "takes a schedule"),
        (lambda t: t.predict(dg.data.DataLoader([{"x": 1.0}])), "a batch is a dict"),
        (lambda t: dg.nn.summary(3), "model=3 is an integer"),
    ],
)
def test_misuse_says_what_to_do(call, message):
    with pytest.raises(dg.errors.DuogradError, match=message):
        call(made())


def test_summaries_count_parameters_and_show_shapes():
    model = made().model
    model[0].bias.requires_grad = False
    tied = dg.nn.Sequential(model, dg.nn.Linear(2, 2))
    found = dg.nn.summary(tied, dg.tensor(X))
    assert found.parameters == 6 * 8 + 8 + 16 + 8 * 2 + 2 + 6
    assert found.trained == found.parameters - 8
    assert found.nbytes == 4 * (found.parameters + 16) + 8  # running statistics, and batches counted
    by_path = {row.path: row for row in found.rows}
    assert by_path["0.0"].output == "[50, 8]"
    assert by_path[""].output == "[50, 2]"
    assert "Linear" in str(found)
    assert model[1].training
    assert "[50" not in str(dg.nn.summary(tied))


def test_training_leaves_pythons_random_numbers_alone():
    code = """
import random
import subprocess
import sys

import duograd as dg
random.seed(0)
m = dg.nn.Linear(4, 3)
t = dg.nn.Trainer(m, loss=dg.nn.CrossEntropyLoss(), optimizer=dg.optim.SGD(m.parameters(), lr=0.1))
t.fit((dg.randn(8, 4), dg.randint(0, 3, (8,))), epochs=1, verbose=False)
text = str(dg.nn.summary(m, dg.ones(1, 4)))
mine = random.random()
random.seed(0)
assert mine == random.random()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
