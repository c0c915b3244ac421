"""TensorFlow as a peer: training speed of LeNet-5 in one process, under MirroredStrategy on logical CPUs,
or under MultiWorkerMirroredStrategy (RING; TF_CONFIG says who the workers are).

Rank 0 prints RESULT {json} as torch_train.py does. A custom loop, since it is faster than Keras' fit:
--calls steps in one tf.function call, data gathered from memory inside it, Adam, no XLA (slower here).
"""
import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow leaves oneDNN off by itself on CPUs without AVX-512 VNNI; on an AVX2 machine LeNet-5 then runs
# at 4,500 samples/s on one core instead of 9,900.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
import keras
import numpy as np
import tensorflow as tf

import mnist


def strategy_for(mode):
    distribute = tf.distribute
    if mode == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        return distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    if mode == "multiworker":
        ring = distribute.experimental.CommunicationImplementation.RING
        options = distribute.experimental.CommunicationOptions(implementation=ring)
        return distribute.MultiWorkerMirroredStrategy(communication_options=options)
    return distribute.get_strategy()


def lenet():
    layers = keras.layers
    return keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(16, 5, activation="relu"), layers.MaxPooling2D(2),
        layers.Flatten(), layers.Dense(120, activation="relu"), layers.Dense(10),
    ])


class Trainer:
    """Model, optimizer and data, and `calls` steps at a time."""

    def __init__(self, args, strategy):
        self.args, self.strategy = args, strategy
        self.replicas = strategy.num_replicas_in_sync
        self.batch = args.batch * self.replicas
        images, labels = mnist.load("train")
        images = images[: args.samples, ..., None]
        self.x = tf.constant(images if args.bytes else images / np.float32(255))
        self.y = tf.constant(labels[: args.samples].astype(np.int64))
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
        with strategy.scope():
            self.model = lenet()
            self.optimizer = keras.optimizers.Adam(1e-3)
            self.optimizer.build(self.model.trainable_variables)

    def step(self, indices, number):
        mine = indices[number]
        x = tf.gather(self.x, mine)
        if self.args.bytes:
            x = tf.cast(x, tf.float32) / 255
        with tf.GradientTape() as tape:
            loss = self.loss(tf.gather(self.y, mine), self.model(x, training=True)) / self.batch
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    @tf.function
    def steps(self, indices, count):
        total = 0.0
        for number in tf.range(count):
            losses = self.strategy.run(self.step, args=(indices, number))
            total += tf.reduce_sum(tf.stack(self.strategy.experimental_local_results(losses)))
        return total

    def call(self, indices):
        """Takes len(indices) steps; indices (steps, replicas, batch). Filled up, so that it traces once."""
        count = len(indices)
        block = np.zeros((self.args.calls, self.replicas, self.args.batch), np.int32)
        block[:count] = indices
        of = lambda context: tf.constant(block[:, context.replica_id_in_sync_group])
        values = self.strategy.experimental_distribute_values_from_function(of) \
            if self.replicas > 1 else tf.constant(block[:, 0])
        return float(self.steps(values, tf.constant(count)))

    def epoch(self, order, launched):
        """Takes an epoch's steps, the first one alone; returns the seconds from launch to its end."""
        count = len(order) // self.batch
        order = order[: count * self.batch].reshape(count, self.replicas, self.args.batch)
        cuts = [0] + ([1] if launched else []) + list(range(self.args.calls, count, self.args.calls)) + [count]
        first = None
        for start, end in zip(cuts, cuts[1:]):
            self.call(order[start:end])
            first = first or (launched and time.time() - launched)
        return first


def main():
    launched = float(os.environ.get("LAUNCHED", time.time()))
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", default="single", choices=["single", "mirrored", "multiworker"])
    parser.add_argument("--batch", type=int, default=64, help="of each replica")
    parser.add_argument("--samples", type=int, default=25600, help="in an epoch, over all replicas")
    parser.add_argument("--epochs", type=int, default=4, help="the first one is the warm-up")
    parser.add_argument("--calls", type=int, default=50, help="steps in one tf.function call")
    parser.add_argument("--inter", type=int, default=1, help="operations that run at a time")
    parser.add_argument("--bytes", action="store_true", help="keep the data as bytes: less memory")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(args.inter)
    keras.utils.set_random_seed(0)
    trainer = Trainer(args, strategy_for(args.mode))
    shuffle = np.random.default_rng(123)
    epochs, first = [], None
    for number in range(args.epochs):
        start = time.time()
        ended = trainer.epoch(shuffle.permutation(args.samples), None if number else launched)
        first = first or ended
        epochs.append(time.time() - start)
    if int(os.environ.get("RANK", 0)) == 0:
        done = args.samples // trainer.batch * trainer.batch
        rate = done / statistics.median(epochs[1:] or epochs)
        print("RESULT " + json.dumps({"rate": rate, "first_step_s": first, "epochs_s": epochs}), flush=True)


if __name__ == "__main__":
    main()
