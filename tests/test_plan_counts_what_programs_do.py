"""What is read out of compiled programs: collectives with their bytes, axes and rounds, and the memory's traffic."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.parallel import make_mesh
from musicssl_jax.planning.collectives import crossed_axes, device_groups, find_collectives
from musicssl_jax.planning.hlo import ArrayShape, parse, parse_shape
from musicssl_jax.planning.traffic import bytes_by_part, memory_traffic, moves

ROUNDS = 5
LOCAL = 1024  # numbers that each device has


def compiled(function, mesh, *, length=LOCAL):
    """The program of a function of one device's numbers, on both axes of the mesh."""
    spec = P(("data", "fsdp"))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    numbers = jax.ShapeDtypeStruct((length * mesh.size,), jnp.float32, sharding=NamedSharding(mesh, spec))
    return parse(jax.jit(mapped).lower(numbers).compile().as_text())


def collectives(function, data, fsdp, **options):
    mesh = make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    return find_collectives(compiled(function, mesh, **options), dict(mesh.shape))


def in_a_loop(function):
    return lambda x: jax.lax.scan(lambda carry, _: (function(carry), None), x, length=ROUNDS)[0]


@pytest.mark.parametrize(
    ("function", "kind", "axes", "size", "group", "sent"),
    [
        (partial(jax.lax.psum, axis_name="data"), "all-reduce", ("data",), 4096, 2, 4096),
        (partial(jax.lax.psum, axis_name="fsdp"), "all-reduce", ("fsdp",), 4096, 4, 6144),
        (partial(jax.lax.psum, axis_name=("data", "fsdp")), "all-reduce", ("data", "fsdp"), 4096, 8, 7168),
        (lambda x: jax.lax.all_gather(x, "fsdp").sum(0), "all-gather", ("fsdp",), 16384, 4, 12288),
        (
            lambda x: jnp.tile(jax.lax.psum_scatter(x, "fsdp", tiled=True), 4),
            "reduce-scatter",
            ("fsdp",),
            4096,
            4,
            3072,
        ),
        (
            partial(jax.lax.ppermute, axis_name="fsdp", perm=[(0, 1), (1, 2), (2, 3), (3, 0)]),
            "collective-permute",
            ("fsdp",),
            4096,
            4,
            4096,
        ),
    ],
)
def test_collectives_have_a_kind_axes_and_bytes(function, kind, axes, size, group, sent):
    (found,) = collectives(function, 2, 4)
    assert (found.kind, found.axes, found.bytes, found.group) == (kind, axes, size, group)
    assert (found.times, found.loops, found.scalars) == (1, 0, 0)
    assert found.sent_per_update == sent


def test_a_collective_in_a_loop_counts_with_every_round():
    (found,) = collectives(in_a_loop(lambda x: jax.lax.psum(x, "data") / 2), 2, 1)
    assert (found.times, found.loops, found.bytes_per_update) == (ROUNDS, 1, ROUNDS * 4096)
    (found,) = collectives(in_a_loop(in_a_loop(lambda x: jax.lax.psum(x, "data") / 2)), 2, 1)
    assert (found.times, found.loops) == (ROUNDS**2, 2)


def test_scalars_are_counted_apart():
    def both(x):
        total, first = jax.lax.psum((x, x[0]), "data")
        return total + first

    found = collectives(both, 2, 1)
    assert sum(c.bytes for c in found) == 4096
    assert sum(c.scalars for c in found) == 1


def test_a_group_of_one_device_moves_nothing():
    assert collectives(lambda x: jax.lax.psum(x, "data"), 1, 4) == []


def test_both_branches_count():
    def either(x):
        return jax.lax.cond(jax.lax.psum(x[0], "data") > 0, lambda x: jax.lax.psum(x, "data"), jnp.sin, x)

    assert sum(c.bytes for c in collectives(either, 2, 1)) == 4096


def test_a_loop_that_hangs_on_data_is_reported_and_counts_once():
    def halve(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: jax.lax.psum(x, "data") / 4, x)

    mesh = make_mesh(2, 1, jax.devices()[:2])
    program = compiled(halve, mesh)
    assert program.unknown_loops == 1
    assert find_collectives(program, dict(mesh.shape))[0].times == 1
    assert compiled(in_a_loop(jnp.sin), mesh).unknown_loops == 0


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0},{2,3},{3,2}}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=4] {'axis_0','axis_1'}", [[0, 1, 2, 3]]),
        (
            "replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'b'}",
            [[0, 1], [2, 3]],
        ),
        ("replica_groups={}", [[0, 1, 2, 3]]),
        ("channel_id=1", [[0, 1, 2, 3]]),
    ],
)
def test_every_spelling_of_groups_is_understood(attributes, groups):
    assert device_groups(attributes, 4) == groups


def test_groups_in_an_unknown_spelling_are_not_taken_for_all_devices():
    with pytest.raises(ValueError, match="not known: replica_groups=mesh"):
        device_groups("replica_groups=mesh['a'=4] {'a':(1)2}", 4)


def test_axes_are_those_along_which_members_differ():
    sizes = {"data": 2, "fsdp": 2}
    assert crossed_axes([[0, 1], [2, 3]], sizes) == ("fsdp",)
    assert crossed_axes([[0, 2], [1, 3]], sizes) == ("data",)
    assert crossed_axes([[0, 1, 2, 3]], sizes) == ("data", "fsdp")
    assert crossed_axes([[0]], sizes) == ()


def test_shapes_know_their_bytes_and_where_they_lie():
    assert parse_shape("(f32[2,3]{1,0}, (bf16[8]{0:T(256)S(1)}, pred[]), s4[10], token[])") == (
        ArrayShape("f32", (2, 3)),
        ArrayShape("bf16", (8,), near=True),
        ArrayShape("pred", ()),
        ArrayShape("s4", (10,)),
        ArrayShape("token", ()),
    )
    assert [shape.bytes for shape in parse_shape("f32[2,3] bf16[8] pred[] s4[10] token[] f8e4m3fn[4] c64[2]")] == [
        *(24, 16, 1, 5, 0, 4, 16)
    ]


def test_traffic_is_what_is_read_and_written_with_every_round():
    mesh = make_mesh(1, 1, jax.devices()[:1])
    assert memory_traffic(compiled(lambda x: x * 2 + 1, mesh)) == 2 * 4096
    once, rounds = (memory_traffic(compiled(f(lambda x: jnp.sin(x) * 2), mesh)) for f in (lambda f: f, in_a_loop))
    # A loop also copies what it carries and counts its rounds.
    assert ROUNDS * once <= rounds < (ROUNDS + 3) * once + 100 * ROUNDS


def test_bytes_by_part_add_up_to_the_traffic():
    def update(x):
        with jax.named_scope("attention"):
            x = in_a_loop(lambda x: jnp.sin(x) * 2)(x)
        with jax.named_scope("optimizer"):
            return jnp.sort(x)

    program = compiled(update, make_mesh(1, 1, jax.devices()[:1]))
    parts = bytes_by_part(moves(program))
    assert sum(parts.values()) == memory_traffic(program)
    assert parts["attention", False] >= ROUNDS * 2 * 4096
    assert parts["optimizer", False] >= 2 * 4096


def test_scratch_of_a_product_is_not_traffic():
    program = parse("""HloModule product

ENTRY %main (p: bf16[8,8], q: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  %q = bf16[8,8]{1,0} parameter(1)
  %product = (bf16[8,8]{1,0}, s8[4194304]{0}) custom-call(%p, %q), custom_call_target="__cublas$lt$matmul"
  ROOT %given = bf16[8,8]{1,0} get-tuple-element(%product), index=0
}
""")
    assert memory_traffic(program) == 3 * 8 * 8 * 2


def test_a_slice_reads_what_it_gives():
    program = parse("""HloModule slice

ENTRY %main (p: f32[1000], i: s32[]) -> f32[10] {
  %p = f32[1000]{0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %slice = f32[10]{0} dynamic-slice(%p, %i), dynamic_slice_sizes={10}
}
""")
    assert memory_traffic(program) == 2 * 10 * 4


def test_a_slice_of_a_fusion_within_a_fusion_reads_what_it_gives():
    """TPUs slice so what a loop's rounds have stored."""
    program = parse("""HloModule slice

%inner (q: f32[1000], j: s32[]) -> f32[10] {
  %q = f32[1000]{0} parameter(0)
  %j = s32[] parameter(1)
  ROOT %slice = f32[10]{0} dynamic-slice(%q, %j), dynamic_slice_sizes={10}
}

%outer (r: f32[1000], k: s32[]) -> f32[10] {
  %r = f32[1000]{0} parameter(0)
  %k = s32[] parameter(1)
  %inside = f32[10]{0} fusion(%r, %k), kind=kLoop, calls=%inner
  ROOT %twice = f32[10]{0} add(%inside, %inside)
}

ENTRY %main (p: f32[1000], i: s32[]) -> f32[10] {
  %p = f32[1000]{0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %fused = f32[10]{0} fusion(%p, %i), kind=kOutput, calls=%outer
}
""")
    assert memory_traffic(program) == 2 * 10 * 4 + 4


def test_of_a_slice_only_the_slice_is_traffic():
    """A loop over the rows of a table reads the table once, not once a round."""
    rows = 64

    def add_rows(x):
        table = x.reshape(rows, -1)
        return jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros(table.shape[1]), table)[0].repeat(rows)

    mesh = make_mesh(1, 1, jax.devices()[:1])
    whole = LOCAL * rows * 4
    assert memory_traffic(compiled(add_rows, mesh, length=LOCAL * rows)) < 10 * whole
