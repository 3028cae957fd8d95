# Compiler settings and the four functions that every folder uses.
include(CTest)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_compile_options(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
if(VIDEONSA_WERROR)
  add_compile_options(-Werror)
endif()
if(VIDEONSA_SANITIZE)
  add_compile_options(-fsanitize=${VIDEONSA_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${VIDEONSA_SANITIZE})
endif()

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

# videonsa_library(<name> SRCS ... [DEPS ...]): a static library whose include root is the
# repository.
function(videonsa_library name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  if(arg_SRCS)
    add_library(${name} STATIC ${arg_SRCS})
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${arg_DEPS} Threads::Threads)
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${arg_DEPS} Threads::Threads)
  endif()
endfunction()

# videonsa_sanitized(<name>): what a sanitizer needs in every program.
function(videonsa_sanitized name)
  if(VIDEONSA_SANITIZE STREQUAL "thread")
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support/tsan_absl.cc)
    target_link_libraries(${name} PRIVATE ${CMAKE_DL_LIBS})
  endif()
endfunction()

# videonsa_binary(<name> SRCS ... [DEPS ...]): an executable in <build>/bin.
function(videonsa_binary name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${arg_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} Threads::Threads)
  videonsa_sanitized(${name})
endfunction()

# videonsa_test(<name> SRCS ... [DEPS ...] [TIMEOUT seconds]): a GoogleTest program, one ctest
# entry. Tests find their data under VIDEONSA_TEST_DATA (tests/data) and the source tree under
# VIDEONSA_SOURCE_DIR, built programs under VIDEONSA_BIN_DIR.
function(videonsa_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(${name} ${arg_SRCS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE
    VIDEONSA_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    VIDEONSA_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data"
    VIDEONSA_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main Threads::Threads)
  videonsa_sanitized(${name})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/tsan.supp")
endfunction()

if(VIDEONSA_TESTS)
  find_package(GTest REQUIRED)
endif()
