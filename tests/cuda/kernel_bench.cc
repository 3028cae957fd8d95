namespace videonsa::gpu_check {
int RunBench(int argc, char** argv);  // kernel_bench.cu
}

int main(int argc, char** argv) { return videonsa::gpu_check::RunBench(argc, argv); }
