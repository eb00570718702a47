"""How tests start the same command on two CPU processes."""

import sys

#: The distributed launcher is the one for many GPUs; a command that asks for the CPU gets gloo instead of NCCL.
TWO_PROCESSES = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
TWO_PROCESSES += ["--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no"]
TWO_PROCESSES += ["--dynamo_backend", "no"]
