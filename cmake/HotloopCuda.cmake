# The CUDA part: target _cuda, a device library of its own made of csrc/kernels/*_cuda.cu and csrc/device/*.cu.
#
# HOTLOOP_CUDA  AUTO  build it if an nvcc that works is found, else say why not (the default)
#               ON    as AUTO, but stop where it cannot be built
#               OFF   leave it out
# HOTLOOP_CUDA_ARCHS  native (the GPUs of this machine; sm_90 where there is none), all (what wheels carry),
#                     or a list such as 80;90a; +PTX at the end of a number adds code that newer GPUs translate.
#
# nvcc is called by custom commands and not through CMake's CUDA language: the compiler's PyPI wheels have the
# toolkit's parts where that language does not look, and the host link needs no nvcc.
set(HOTLOOP_CUDA AUTO CACHE STRING "Build the CUDA part: AUTO, ON or OFF")
set(HOTLOOP_CUDA_ARCHS native CACHE STRING "GPU architectures: native, all, or a list such as 80;90a+PTX")
set(HOTLOOP_CUDA_PTXAS "" CACHE STRING "More options for ptxas, by commas: -v,-warn-spills")
set(HOTLOOP_CUDA_OLDEST_NVCC 12.0)  # the first with C++20

# What wheels carry. sm_86 code runs on 89 too, and PTX of 90 on everything after it (100, 103, ...). 120 comes
# with nvcc 12.8.
set(HOTLOOP_CUDA_WHEEL_ARCHS 75 80 86 90a 120 90+PTX)
set(HOTLOOP_CUDA_WITHOUT_GPU 90+PTX)

# nvcc's path, from the places in the order in which a user can mean them.
function(hotloop_find_nvcc result)
  set(home)
  foreach(variable CUDA_HOME CUDA_PATH)
    if(DEFINED ENV{${variable}})
      list(APPEND home $ENV{${variable}}/bin)
    endif()
  endforeach()
  set(wheels)
  if(Python_EXECUTABLE)
    # Where pip puts the wheels nvidia-cuda-nvcc and its like: nvidia/cu13 in one of the path's folders.
    execute_process(COMMAND ${Python_EXECUTABLE} -c
      "import glob, sys; print(';'.join(b for p in sys.path if p for b in sorted(glob.glob(p + '/nvidia/cu[0-9]*/bin'))[::-1]))"
      OUTPUT_VARIABLE wheels OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_program(HOTLOOP_NVCC nvcc PATHS ${home} NO_DEFAULT_PATH)
  find_program(HOTLOOP_NVCC nvcc PATHS ENV PATH NO_DEFAULT_PATH)
  find_program(HOTLOOP_NVCC nvcc PATHS ${wheels} /usr/local/cuda/bin NO_DEFAULT_PATH)
  set(${result} ${HOTLOOP_NVCC} PARENT_SCOPE)
endfunction()

# Why no library can be built with that nvcc, empty if one can; sets version and the folders for the linker.
function(hotloop_check_nvcc nvcc reason)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE failed)
  if(failed OR NOT text MATCHES "release ([0-9]+\\.[0-9]+)")
    set(${reason} "${nvcc} does not run" PARENT_SCOPE)
    return()
  endif()
  set(version ${CMAKE_MATCH_1})
  set(hotloop_nvcc_version ${version} PARENT_SCOPE)
  if(version VERSION_LESS HOTLOOP_CUDA_OLDEST_NVCC)
    set(${reason} "${nvcc} is of CUDA ${version}; ${HOTLOOP_CUDA_OLDEST_NVCC} or newer is needed" PARENT_SCOPE)
    return()
  endif()

  # A whole small library: shows a host compiler that nvcc refuses, and missing headers or libraries.
  set(folder ${PROJECT_BINARY_DIR}/_cuda/try)
  file(WRITE ${folder}/try.cu "#include <cuda_runtime.h>\n#include <vector>\n__global__ void k(int* p) { *p = 1; }\n"
    "int f(std::vector<int>& v) { k<<<1, 1>>>(v.data()); return cudaGetLastError(); }\n")
  execute_process(COMMAND ${nvcc} -std=c++20 -ccbin ${CMAKE_CXX_COMPILER} -arch=sm_90 -Xcompiler -fPIC
    -c ${folder}/try.cu -o ${folder}/try.o OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE failed)
  if(failed)
    string(REGEX MATCH "[^\n]*([Ee]rror|fatal)[^\n]*" line "${text}")
    set(${reason} "${nvcc} does not compile with ${CMAKE_CXX_COMPILER}: ${line}" PARENT_SCOPE)
    return()
  endif()
  # The folder above nvcc's own, as nvcc itself tells it: nvcc may be a link or a script.
  execute_process(COMMAND ${nvcc} -dryrun -x cu /dev/null ERROR_VARIABLE text OUTPUT_QUIET)
  string(REGEX MATCH "TOP=([^\n]*)" line "${text}")
  string(STRIP "${CMAKE_MATCH_1}" top)
  find_library(HOTLOOP_CUDART NAMES libcudart_static.a NO_DEFAULT_PATH
    PATHS ${top}/lib64 ${top}/lib ${top}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib ${top}/targets/sbsa-linux/lib)
  if(NOT HOTLOOP_CUDART)
    set(${reason} "no libcudart_static.a under ${top} (PyPI: nvidia-cuda-runtime)" PARENT_SCOPE)
    return()
  endif()
  set(${reason} "" PARENT_SCOPE)
endfunction()

# The list of architectures that HOTLOOP_CUDA_ARCHS means, of those that this nvcc knows.
function(hotloop_cuda_archs nvcc result)
  set(wanted ${HOTLOOP_CUDA_ARCHS})
  if(wanted STREQUAL "all")
    set(wanted ${HOTLOOP_CUDA_WHEEL_ARCHS})
  elseif(wanted STREQUAL "native")
    set(wanted)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
      OUTPUT_VARIABLE text ERROR_QUIET RESULT_VARIABLE failed TIMEOUT 30)
    if(NOT failed)
      string(REGEX MATCHALL "[0-9]+\\.[0-9]" found "${text}")
      string(REPLACE "." "" wanted "${found}")
    endif()
    list(REMOVE_DUPLICATES wanted)
    list(TRANSFORM wanted REPLACE "^90$" "90a")
    if(NOT wanted)
      set(wanted ${HOTLOOP_CUDA_WITHOUT_GPU})
    endif()
  endif()
  string(REPLACE "," ";" wanted "${wanted}")  # an environment variable has commas where CMake has semicolons
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
  set(archs)
  foreach(arch ${wanted})
    string(REGEX MATCH "^[0-9]+" number "${arch}")
    if(NOT arch MATCHES "^[0-9]+[af]?(\\+PTX)?$")
      message(FATAL_ERROR "[HOTLOOP_CUDA_ARCHS] '${arch}' is no architecture; allowed: native, all, or numbers such as 80;90a;90+PTX")
    elseif(known MATCHES "compute_${number}[^0-9]")
      list(APPEND archs ${arch})
    else()
      message(STATUS "hotloop: this nvcc knows no sm_${number}, which is left out")
    endif()
  endforeach()
  if(NOT archs)
    # A GPU newer than the compiler: PTX that its driver translates.
    set(archs ${HOTLOOP_CUDA_WITHOUT_GPU})
  endif()
  set(${result} ${archs} PARENT_SCOPE)
endfunction()

# hotloop_add_cuda(_cuda nvcc archs)
function(hotloop_add_cuda target nvcc archs)
  set(codes)
  foreach(arch ${archs})
    string(REPLACE "+PTX" "" number "${arch}")
    # With +PTX a list entry is machine code and PTX, unless the plain number or its a-form is there as well.
    if(arch MATCHES "PTX" AND ("${number}" IN_LIST archs OR "${number}a" IN_LIST archs))
      list(APPEND codes -gencode=arch=compute_${number},code=compute_${number})
    elseif(arch MATCHES "PTX")
      list(APPEND codes -gencode=arch=compute_${number},code=[sm_${number},compute_${number}])
    else()
      list(APPEND codes -gencode=arch=compute_${number},code=sm_${number})
    endif()
  endforeach()
  # Contraction stays on in device code, unlike in the CPU's units: a GPU has a fused multiply-add in any case, and
  # there is no vector loop with a tail that must give the same bits. 1675: pragmas of the host's compiler.
  set(flags -std=c++20 -O3 --threads 1 -ccbin ${CMAKE_CXX_COMPILER} ${codes} -I${PROJECT_SOURCE_DIR}/csrc
    -diag-suppress 1675 -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden -Xfatbin -compress-all)
  if(HOTLOOP_WERROR)
    list(APPEND flags -Werror all-warnings -Xcompiler -Werror)
  endif()
  if(HOTLOOP_CUDA_PTXAS)
    list(APPEND flags -Xptxas ${HOTLOOP_CUDA_PTXAS})
  endif()

  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/*_cuda.cu ${PROJECT_SOURCE_DIR}/csrc/device/*.cu)
  set(objects)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    set(object ${PROJECT_BINARY_DIR}/_cuda/${name}.o)
    add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d
      COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${nvcc} ${flags} -MD -MF ${object}.d -c ${source} -o ${object}
      COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  # Linked by the host's compiler: no device code crosses files. libcuda is opened by the runtime at its first call.
  add_library(${target} MODULE EXCLUDE_FROM_ALL ${objects})
  target_link_libraries(${target} PRIVATE ${HOTLOOP_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL -Wl,--as-needed -Wl,--no-undefined)
  set_target_properties(${target} PROPERTIES PREFIX "" SUFFIX ".so" LINKER_LANGUAGE CXX)
endfunction()

# What is built, for _core.build_info(): one of these two is empty.
set(hotloop_cuda_built)
set(hotloop_cuda_reason)
if(HOTLOOP_CUDA STREQUAL "")  # an environment variable that is set to nothing
  set(HOTLOOP_CUDA AUTO)
elseif(HOTLOOP_CUDA STREQUAL "FETCH")  # the wheels are there by now: pyproject.toml
  set(HOTLOOP_CUDA ON)
endif()
if(NOT HOTLOOP_CUDA)
  set(hotloop_cuda_reason "it was left out (HOTLOOP_CUDA=OFF)")
elseif(CMAKE_CROSSCOMPILING)
  set(hotloop_cuda_reason "it is not built by cross compilers")
else()
  hotloop_find_nvcc(hotloop_nvcc)
  if(NOT hotloop_nvcc)
    set(hotloop_cuda_reason "no nvcc was found on PATH, in CUDA_HOME or among Python's packages")
  else()
    hotloop_check_nvcc(${hotloop_nvcc} hotloop_cuda_reason)
  endif()
endif()
if(NOT hotloop_cuda_reason)
  hotloop_cuda_archs(${hotloop_nvcc} hotloop_archs)
  hotloop_add_cuda(_cuda ${hotloop_nvcc} "${hotloop_archs}")
  list(TRANSFORM hotloop_archs PREPEND "sm_" OUTPUT_VARIABLE hotloop_cuda_built)
  string(REPLACE ";" "," hotloop_cuda_built "${hotloop_cuda_built}")
  message(STATUS "hotloop: with CUDA for ${hotloop_cuda_built} by ${hotloop_nvcc} ${hotloop_nvcc_version}")
elseif(HOTLOOP_CUDA STREQUAL "AUTO" OR NOT HOTLOOP_CUDA)
  message(STATUS "hotloop: the package will be for the CPU alone, without CUDA: ${hotloop_cuda_reason}")
else()
  message(FATAL_ERROR "[HOTLOOP_CUDA] ON, but ${hotloop_cuda_reason}. Set CUDA_HOME to a toolkit of version "
    "${HOTLOOP_CUDA_OLDEST_NVCC} or newer, or HOTLOOP_CUDA=FETCH for the compiler from PyPI, or =OFF; docs/building_cuda.md")
endif()
