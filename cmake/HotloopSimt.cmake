# hotloop_add_simt(_simt): the device library made of the CUDA sources by the C++ compiler, on the emulator in
# tests/simt. Each source is included by a stub of its own, so that no file changes its language.
function(hotloop_add_simt target)
  file(GLOB kernel_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/*_cuda.cu)
  file(GLOB emulator_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/simt/*.cc)
  set(stubs)
  foreach(source ${kernel_sources})
    get_filename_component(name ${source} NAME_WE)
    set(stub ${PROJECT_BINARY_DIR}/${target}/${name}.cc)
    file(CONFIGURE OUTPUT ${stub} CONTENT "#include \"${source}\"\n")
    list(APPEND stubs ${stub})
  endforeach()
  add_library(${target} MODULE ${stubs} ${emulator_sources})
  target_link_libraries(${target} PRIVATE hotloop_flags)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  # As nvcc compiles for the host: fused multiply-adds have an instruction of their own on every GPU.
  target_compile_options(${target} PRIVATE -O2 $<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang>:-fno-math-errno>
    $<$<BOOL:${HOTLOOP_X86}>:-mfma>)
  set_target_properties(${target} PROPERTIES PREFIX "")
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(HOTLOOP_X86 ON)
endif()
hotloop_add_simt(_simt)
