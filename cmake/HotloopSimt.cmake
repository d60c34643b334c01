# hotloop_add_simt(TARGET MODE): the device library made of the CUDA sources by the C++ compiler, on the emulator in
# tests/simt. Each source is included by a stub of its own, so that no file changes its language. Modes: plain;
# race, with the compiler's hooks for threads, which the emulator answers itself; asan, with the sanitizers of
# addresses and undefined behaviour, to be loaded where their libraries are already (LD_PRELOAD).
function(hotloop_add_simt target mode)
  file(GLOB kernel_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/*_cuda.cu
    ${PROJECT_SOURCE_DIR}/tests/simt/*.cu)
  set(stubs)
  foreach(source ${kernel_sources})
    get_filename_component(name ${source} NAME_WE)
    set(stub ${PROJECT_BINARY_DIR}/${target}/${name}.cc)
    file(CONFIGURE OUTPUT ${stub} CONTENT "#include \"${source}\"\n")
    list(APPEND stubs ${stub})
  endforeach()
  add_library(${target} MODULE ${stubs} ${PROJECT_SOURCE_DIR}/tests/simt/api_simt.cc)
  hotloop_use_emulator(${target} ${mode} "${stubs}")
  set_target_properties(${target} PROPERTIES PREFIX "")
endfunction()

# The emulator, and the options that kernels are compiled with in that mode.
function(hotloop_use_emulator target mode kernels)
  file(GLOB emulator_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/simt/*.cc)
  list(FILTER emulator_sources EXCLUDE REGEX "api_simt.cc$")
  target_sources(${target} PRIVATE ${emulator_sources})
  target_link_libraries(${target} PRIVATE hotloop_flags ${CMAKE_DL_LIBS})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  # As nvcc compiles for the host: fused multiply-adds have an instruction of their own on every GPU.
  target_compile_options(${target} PRIVATE -O2 $<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang>:-fno-math-errno>
    $<$<BOOL:${HOTLOOP_X86}>:-mfma>)
  if(mode STREQUAL "race")
    file(GLOB race_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/simt/race/*.cc)
    target_sources(${target} PRIVATE ${race_sources})
    target_compile_definitions(${target} PRIVATE HOTLOOP_SIMT_RACE)
    set_property(SOURCE ${kernels} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS -fsanitize=thread -g1)
  elseif(mode STREQUAL "asan")
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all -g1)
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(HOTLOOP_X86 ON)
endif()
hotloop_add_simt(_simt plain)
foreach(mode race asan)
  hotloop_add_simt(_simt_${mode} ${mode})
  set_target_properties(_simt_${mode} PROPERTIES EXCLUDE_FROM_ALL ON)
endforeach()
