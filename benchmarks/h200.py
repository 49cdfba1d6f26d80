"""What XLA's compiler has to know of an H200 and its software to compile for it where there is none."""

CUDNN = 91002
"""cuDNN 9.10.2, as JAX writes it: of the versions that JAX 0.10 is built for."""

# Compute capability, 132 multiprocessors (core_count), memory and its bandwidth: NVIDIA's data sheet of the H200 SXM.
# Limits of threads, blocks, registers (65,536) and shared memory (228 KiB a multiprocessor, 227 of them for one block,
# 48 unless a block asks for more): CUDA's programming guide, table of compute capabilities, 9.0. Lanes for float32 in
# a multiprocessor (fpus_per_core, 128), 50 MiB of L2 cache, clock: NVIDIA's Hopper architecture paper (the clock of
# H100 SXM's boost, which the H200 shares). Field names are those of XLA's stream_executor/device_description.proto.
# Without lanes, clock and bandwidth, without cache and memory, or without registers another program comes out.
DESCRIPTION = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 141000000000
  memory_bandwidth: 4800000000000
  l2_cache_size: 52428800
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 2 }
device_description_str: "NVIDIA H200"
"""
