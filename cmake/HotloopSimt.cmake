# Kernels on the emulator in tests/simt. Each source is included by a stub of each target's own, so that no file
# changes its language and no target another's options. Modes: plain; race, with the compiler's hooks for threads,
# which the emulator answers itself; asan, with the sanitizers of addresses and undefined behaviour, whose libraries
# must be loaded before a library of that mode (LD_PRELOAD).
function(hotloop_stubs target out)
  set(stubs)
  foreach(source ${ARGN})
    get_filename_component(name ${source} NAME_WE)
    set(stub ${PROJECT_BINARY_DIR}/stubs/${target}/${name}.cc)
    # As other files include it: where the project lies must not be part of what is compiled.
    string(REGEX REPLACE "^${PROJECT_SOURCE_DIR}/(csrc|tests)/" "" path ${source})
    file(CONFIGURE OUTPUT ${stub} CONTENT "#include \"${path}\"\n")
    list(APPEND stubs ${stub})
  endforeach()
  set(${out} ${stubs} PARENT_SCOPE)
endfunction()

# The emulator, and the options that kernels are compiled with in that mode.
function(hotloop_use_emulator target mode)
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
    set_property(SOURCE ${ARGN} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS -fsanitize=thread -g1)
  elseif(mode STREQUAL "asan")
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all -g1)
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(HOTLOOP_X86 ON)
endif()
file(GLOB simt_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/*_cuda.cu
  ${PROJECT_SOURCE_DIR}/tests/simt/*.cu)
file(GLOB simt_mutants CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/simt/mutants/*.cc)
foreach(mode plain race asan)
  # The device library as the CUDA sources and the C++ compiler make it: _simt, _simt_race, _simt_asan.
  string(REPLACE "_plain" "" library "_simt_${mode}")
  hotloop_stubs(${library} stubs ${simt_kernels})
  add_library(${library} MODULE ${stubs} ${PROJECT_SOURCE_DIR}/tests/simt/api_simt.cc)
  hotloop_use_emulator(${library} ${mode} ${stubs})
  set_target_properties(${library} PROPERTIES PREFIX "")
  # What the emulator must find; see tests/simt/test_mutants.py.
  hotloop_stubs(simt_mutants_${mode} stubs ${simt_mutants})
  add_executable(simt_mutants_${mode} EXCLUDE_FROM_ALL ${stubs})
  hotloop_use_emulator(simt_mutants_${mode} ${mode} ${stubs})
endforeach()
set_target_properties(_simt_race _simt_asan PROPERTIES EXCLUDE_FROM_ALL ON)
