// What the files of the CPU backend share. The Makefile compiles the directory once for each
// instruction set and element type, with CPU_OPEN the name of that variant's cpu_open and CPU_BF16
// 0 or 1.
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

// The values of the step that is running, and the number of threads to use.
extern StepValues cpu_step;
extern int cpu_threads;

// threads 0: all that this process may use. STATUS_DEVICE: the processor lacks the instructions.
int CPU_OPEN(const Kernels **k, int threads, Error *e);

// Each file puts its operations into the table.
void cpu_memory_ops(Kernels *k);
void cpu_control_ops(Kernels *k);
void cpu_gather_ops(Kernels *k);
void cpu_linear_ops(Kernels *k);
void cpu_conv2d_ops(Kernels *k);
void cpu_conv2d_norm_ops(Kernels *k);
void cpu_conv2d_pool_backward_ops(Kernels *k);
void cpu_activation_ops(Kernels *k);
void cpu_norm_ops(Kernels *k);
void cpu_pool_ops(Kernels *k);
void cpu_loss_ops(Kernels *k);
void cpu_optimizer_ops(Kernels *k);
void cpu_vector_ops(Kernels *k);

#endif
