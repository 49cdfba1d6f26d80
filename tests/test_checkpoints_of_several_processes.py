"""Two processes save together, and agree on which checkpoint to go on from."""

import socket
import subprocess
import sys

from checkpoint_fixtures import same_imports

SCRIPT = """
import sys
import jax
process, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process)
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from checkpoint_fixtures import META, abstract, policy
from musicssl_jax.training.checkpointing import open_checkpoints

mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
values = np.arange(32, dtype=np.float32).reshape(8, 4)

def state(step):
    place = lambda spec: jax.make_array_from_callback(
        values.shape, NamedSharding(mesh, spec), lambda index: values[index] + step
    )
    return {"split": place(P("data")), "whole": place(P())}

def check(checkpoints, step):
    restored, meta = checkpoints.restore(abstract(state(0)))
    assert meta == META
    for leaf in jax.tree.leaves(restored):
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), values[shard.index] + step)

checkpoints = open_checkpoints(folder, policy())
for step in (1, 2):
    checkpoints.save(step, state(step), META)
checkpoints.wait()
check(checkpoints, 2)
if process == 0:
    file = next(path for path in (checkpoints.folder / "2" / "state" / "ocdbt.process_1" / "d").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
jax.experimental.multihost_utils.sync_global_devices("damaged")
check(checkpoints, 1)
checkpoints.save(2, state(2), META)
checkpoints.wait()
check(checkpoints, 2)
checkpoints.close()
"""


def test_two_processes_save_and_fall_back_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    commands = [[sys.executable, "-c", SCRIPT, str(process), address, str(tmp_path)] for process in (0, 1)]
    processes = [subprocess.Popen(c, env=same_imports(), stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    assert "going on from checkpoint 1" in said[0]
    assert "going on from" not in said[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "damaged-2"]
