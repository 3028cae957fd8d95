# Finds a CUDA toolkit and compiles .cu files with it. Sets VIDEONSA_HAS_CUDA.
#
# CMake's own CUDA language wants the layout of NVIDIA's installer; the packages of PyPI have
# another. A rule of our own needs nvcc, its headers and the static runtime, wherever they lie.
set(VIDEONSA_CUDA_ROOT "" CACHE PATH "Folder with bin/nvcc; empty: build/cuda-toolkit, nvcc in the PATH, /usr/local/cuda")
set(VIDEONSA_CUDA_ARCHS "90a" CACHE STRING "GPU architectures to compile for; the last one also as PTX unless it ends in a")
set(VIDEONSA_HAS_CUDA OFF)

# Sets VIDEONSA_NVCC and its companions if `root` is a toolkit that this build can use.
function(videonsa_try_toolkit root)
  set(runtime "")
  foreach(lib lib64 lib targets/x86_64-linux/lib)
    if(EXISTS "${root}/${lib}/libcudart_static.a" AND NOT runtime)
      set(runtime "${root}/${lib}/libcudart_static.a")
    endif()
  endforeach()
  if(EXISTS "${root}/bin/nvcc" AND EXISTS "${root}/include/cublasLt.h" AND runtime)
    set(VIDEONSA_NVCC "${root}/bin/nvcc" PARENT_SCOPE)
    set(VIDEONSA_CUDA_INCLUDE "${root}/include" PARENT_SCOPE)
    set(VIDEONSA_CUDART "${runtime}" PARENT_SCOPE)
  endif()
endfunction()

if(NOT VIDEONSA_CUDA STREQUAL "OFF")
  find_program(VIDEONSA_PATH_NVCC nvcc)
  set(candidates "${VIDEONSA_CUDA_ROOT}" "${CMAKE_SOURCE_DIR}/build/cuda-toolkit")
  if(VIDEONSA_PATH_NVCC)
    file(REAL_PATH "${VIDEONSA_PATH_NVCC}" nvcc)
    cmake_path(GET nvcc PARENT_PATH bin)
    cmake_path(GET bin PARENT_PATH root)
    list(APPEND candidates "${root}")
  endif()
  list(APPEND candidates /usr/local/cuda /opt/cuda)
  foreach(root IN LISTS candidates)
    if(root AND NOT VIDEONSA_NVCC)
      videonsa_try_toolkit("${root}")
    endif()
  endforeach()
  if(VIDEONSA_NVCC AND NOT VIDEONSA_SANITIZE)
    set(VIDEONSA_HAS_CUDA ON)
    message(STATUS "CUDA worker: built with ${VIDEONSA_NVCC} for ${VIDEONSA_CUDA_ARCHS}")
  elseif(VIDEONSA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "VIDEONSA_CUDA=ON, but no toolkit with nvcc, cublasLt.h and "
                        "libcudart_static.a was found (make cuda-toolkit installs one)")
  else()
    message(STATUS "CUDA worker: not built (no toolkit, or a sanitizer build); see make cuda-toolkit")
  endif()
endif()

if(VIDEONSA_HAS_CUDA)
  add_library(videonsa_cuda_runtime INTERFACE)
  target_include_directories(videonsa_cuda_runtime SYSTEM INTERFACE "${VIDEONSA_CUDA_INCLUDE}")
  target_link_libraries(videonsa_cuda_runtime INTERFACE
    "${VIDEONSA_CUDART}" ${CMAKE_DL_LIBS} rt Threads::Threads)
endif()

# videonsa_cuda_library(<name> SRCS a.cu ... [DEPS ...]): a static library of device code and its
# launchers; include root is the repository.
function(videonsa_cuda_library name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  set(codes "")
  foreach(each IN LISTS VIDEONSA_CUDA_ARCHS)
    set(arch "${each}")
    list(APPEND codes -gencode "arch=compute_${arch},code=sm_${arch}")
  endforeach()
  if("90a" IN_LIST VIDEONSA_CUDA_ARCHS) # its own instructions may be launched
    list(APPEND codes -DVIDEONSA_SM90A)
  endif()
  if(NOT arch MATCHES "a$") # PTX of an "a" architecture runs on no other
    list(APPEND codes -gencode "arch=compute_${arch},code=compute_${arch}")
  endif()
  set(launcher ${CCACHE_PROGRAM})
  set(objects "")
  foreach(source IN LISTS arg_SRCS)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${source}.o")
    add_custom_command(
      OUTPUT "${object}"
      COMMAND ${launcher} "${VIDEONSA_NVCC}" -std=c++20 -O3 -lineinfo ${codes}
              "-I${CMAKE_SOURCE_DIR}" --expt-relaxed-constexpr -Xcompiler=-fPIC,-Wall
              -MD -MF "${object}.d" -c "${CMAKE_CURRENT_SOURCE_DIR}/${source}" -o "${object}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${source}"
      DEPFILE "${object}.d"
      COMMENT "Building CUDA object ${name}/${source}"
      VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  add_library(${name} STATIC ${objects})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} videonsa_cuda_runtime)
endfunction()
