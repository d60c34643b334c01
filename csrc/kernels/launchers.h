// SPDX-License-Identifier: Apache-2.0
// What the kernels of a device library give to its table: launchers of the list, and the executor's services.
#pragma once

#include "cuda/api.h"
#include "cuda/device_step.h"

namespace hotloop::cuda {

const DeviceKernel* launchers();  // in the order of kernels.def
std::uint32_t n_launchers();

// As api.h says of them.
int chain_fits(const ChainStep* steps, std::size_t n, std::int64_t rows, const DeviceTraits& traits,
               Precision precision);
std::size_t chain_workspace(const ChainStep* steps, std::size_t n, std::int64_t rows,
                            const DeviceTraits& traits, Precision precision);
void chain_launch(const ChainStep* steps, std::size_t n, std::int64_t rows, const Launch& launch);
std::size_t matmul_batch_workspace(const void* args, const MatmulBatch& batch, const DeviceTraits& traits,
                                   Precision precision);
void matmul_batch_launch(const void* args, const MatmulBatch& batch, const Launch& launch);
bool update_list_launch(int kernel, const void* const* args, std::size_t n, const Launch& launch);
void advance(DeviceStep* step, DeviceStream stream);
void gather(const DeviceStep* step, std::int64_t rows, std::int64_t row_elements, DeviceStream stream);
void exchange(void* a, void* b, std::size_t bytes, DeviceStream stream);
void find_not_finite(const float* x, std::int64_t n, int* found, DeviceStream stream);
void find_outside(const void* x, int type, std::int64_t n, double low, double high, std::int64_t* first,
                  DeviceStream stream);

}  // namespace hotloop::cuda
