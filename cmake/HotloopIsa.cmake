# hotloop_add_isa(avx2 "-mavx2;-mfma" [DOUBLE]): the CPU kernels compiled once more, in namespace
# hotloop::avx2, as one object library. DOUBLE also makes the float64 column.
function(hotloop_add_isa isa flags)
  cmake_parse_arguments(ARG "DOUBLE" "" "" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/kernels/*_cpu.cc)
  add_library(hotloop_kernels_${isa} OBJECT ${sources})
  target_link_libraries(hotloop_kernels_${isa} PRIVATE hotloop_flags)
  target_compile_definitions(hotloop_kernels_${isa} PRIVATE HOTLOOP_ISA=${isa}
    $<$<BOOL:${ARG_DOUBLE}>:HOTLOOP_ISA_HAS_DOUBLE>)
  # No exceptions, no RTTI: these units hold nothing but loops. No errno from sqrt, so it is one instruction.
  target_compile_options(hotloop_kernels_${isa} PRIVATE ${flags} -fno-exceptions -fno-rtti -fno-math-errno)
  target_link_libraries(hotloop_core PRIVATE hotloop_kernels_${isa})
endfunction()
