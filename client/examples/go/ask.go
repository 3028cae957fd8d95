// Asks a question about a clip and prints the answer as it is written.
//
//	./generate.sh                                  # once: makes ./gen; its head tells what it needs
//	go run . clip.mp4 "What happens in this clip?"  # -server HOST:PORT -fps 1 -token T
//
// Exit code: 0 answered, 1 refused or failed (reason on stderr).
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "videonsa.example/ask/gen"
)

const inlineBytes = 3 << 20 // what fits beside the text in one message

// upload stores the file and returns the clip's name once it is READY.
func upload(ctx context.Context, clips pb.ClipServiceClient, path string, data []byte) (string, error) {
	digest := sha256.Sum256(data)
	started, err := clips.StartUpload(ctx, &pb.StartUploadRequest{
		SizeBytes: int64(len(data)), Sha256: digest[:], DisplayName: filepath.Base(path)})
	if err != nil {
		return "", err
	}
	name := started.Clip.Name
	if started.AlreadyStored {
		return name, nil
	}
	stream, err := clips.UploadClip(ctx)
	if err != nil {
		return "", err
	}
	offset := started.CommittedSize
	header := &pb.UploadHeader{UploadId: started.UploadId, WriteOffset: offset}
	err = stream.Send(&pb.UploadClipRequest{Payload: &pb.UploadClipRequest_Header{Header: header}})
	table := crc32.MakeTable(crc32.Castagnoli)
	for err == nil && offset < int64(len(data)) {
		end := offset + int64(started.MaxChunkBytes)
		if end > int64(len(data)) {
			end = int64(len(data))
		}
		piece := data[offset:end]
		sum := crc32.Checksum(piece, table)
		chunk := &pb.UploadChunk{Offset: offset, Data: piece, Crc32C: &sum, Finish: end == int64(len(data))}
		err = stream.Send(&pb.UploadClipRequest{Payload: &pb.UploadClipRequest_Chunk{Chunk: chunk}})
		offset = end
	}
	// A Send that fails with EOF means that the server has ended the call; its reason comes here.
	if _, err = stream.CloseAndRecv(); err != nil {
		return "", err
	}
	watch, err := clips.WatchClip(ctx, &pb.WatchClipRequest{Name: name})
	if err != nil {
		return "", err
	}
	for {
		change, err := watch.Recv()
		if err != nil {
			return "", err
		}
		switch change.Clip.State {
		case pb.Clip_STATE_READY:
			return name, nil
		case pb.Clip_STATE_FAILED:
			return "", fmt.Errorf("%s: %s", change.Clip.ErrorReason, change.Clip.ErrorMessage)
		}
	}
}

// source turns what stands on the command line into the clip of the question.
func source(ctx context.Context, clips pb.ClipServiceClient, clip string) (*pb.ClipInput, error) {
	if strings.HasPrefix(clip, "clips/") {
		return &pb.ClipInput{Source: &pb.ClipInput_Clip{Clip: clip}}, nil
	}
	if strings.HasPrefix(clip, "https://") {
		return &pb.ClipInput{Source: &pb.ClipInput_Url{Url: clip}}, nil
	}
	data, err := os.ReadFile(clip)
	if err != nil {
		return nil, err
	}
	if len(data) <= inlineBytes {
		return &pb.ClipInput{Source: &pb.ClipInput_InlineData{InlineData: data}}, nil
	}
	name, err := upload(ctx, clips, clip, data)
	return &pb.ClipInput{Source: &pb.ClipInput_Clip{Clip: name}}, err
}

func ask(ctx context.Context, conn *grpc.ClientConn, clip, question string, fps float64) error {
	input, err := source(ctx, pb.NewClipServiceClient(conn), clip)
	if err != nil {
		return err
	}
	input.Sampling = &pb.VideoSampling{Rule: &pb.VideoSampling_Fps{Fps: fps}}
	stream, err := pb.NewVideoQaServiceClient(conn).AskStream(ctx, &pb.AskStreamRequest{Question: &pb.Question{
		Turns: []*pb.Turn{{Role: pb.Turn_ROLE_USER, Parts: []*pb.Part{
			{Content: &pb.Part_Clip{Clip: input}}, {Content: &pb.Part_Text{Text: question}}}}}}})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			fmt.Println()
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Print(event.GetDelta().GetText())
		if final := event.GetFinal(); final != nil {
			fmt.Fprintf(os.Stderr, "\n%d frames, %.1f %% of dense attention\n", final.Usage.GetFramesUsed(),
				100*final.Attention.GetBudgetFraction())
		}
	}
}

func main() {
	server := flag.String("server", "127.0.0.1:8090", "address of the server")
	fps := flag.Float64("fps", 1, "frames per second that are looked at")
	token := flag.String("token", "", "token of the tenant, if the server asks for one")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: ask [flags] CLIP QUESTION")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if *token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+*token)
	}
	// Plain text, for the loopback; grpc.WithTransportCredentials(credentials.NewTLS(…)) elsewhere.
	conn, err := grpc.Dial(*server, grpc.WithInsecure())
	if err == nil {
		err = ask(ctx, conn, flag.Arg(0), flag.Arg(1), *fps)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "failed: %s: %s\n", status.Code(err), status.Convert(err).Message())
		os.Exit(1)
	}
}
