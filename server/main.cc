#include "runtime/serving/runtime.h"
#include "server/run_server.h"

int main(int argc, char** argv) {
  return videonsa::RunServer({argv + 1, argv + argc}, videonsa::CreateRuntime);
}
