package uniques;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.util.Arrays;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.commons.io.IOUtils;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PathFilter;
import org.apache.hadoop.fs.PositionedReadable;
import org.apache.hadoop.fs.Seekable;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.fs.s3a.S3AFileSystem;
import org.apache.hadoop.util.Progressable;
import org.apache.spark.sql.execution.streaming.*;
import org.apache.spark.sql.execution.streaming.checkpointing.*;

/**
 * Files in an S3-compatible store that must be new: each is written by one request, on the condition that there is none,
 * which the store itself decides. Written for Janino.
 */
public final class StoreFiles {

    private StoreFiles() {
    }

    /** Writes a small file; fails with FileAlreadyExistsException when another one is there. */
    static void create(FileSystem files, Path path, byte[] content) throws IOException {
        try {
            FSDataOutputStream stream = open(files, path, false);
            stream.write(content);
            stream.close();
        } catch (IOException refused) {
            if (!isTaken(refused)) {
                throw refused;
            }
            // A store whose answer was lost took the file, and refuses it when Hadoop sends it again.
            if (!Arrays.equals(content, read(files, path))) {
                throw new FileAlreadyExistsException(path.toString());
            }
        }
    }

    /** Opens a file to be written, in place of another one or only where there is none; asks nothing before. */
    static FSDataOutputStream open(FileSystem files, Path path, boolean overwrite) throws IOException {
        FSDataOutputStreamBuilder builder = (FSDataOutputStreamBuilder) files.createFile(path);
        builder = (FSDataOutputStreamBuilder) builder.overwrite(overwrite);
        builder = (FSDataOutputStreamBuilder) builder.recursive();
        if (overwrite) {
            builder = (FSDataOutputStreamBuilder) builder.opt("fs.s3a.create.performance", "true");
        } else if (files.getConf().getBoolean("fs.s3a.create.conditional.enabled", true)) {
            builder = (FSDataOutputStreamBuilder) builder.opt("fs.option.create.conditional.overwrite", "true");
        }
        return (FSDataOutputStream) builder.build();
    }

    private static boolean isTaken(IOException refused) {
        return refused instanceof FileAlreadyExistsException
            || refused.getClass().getName().endsWith(".RemoteFileChangedException");
    }

    private static byte[] read(FileSystem files, Path path) throws IOException {
        FSDataInputStream stream = files.open(path);
        try {
            return IOUtils.toByteArray(stream);
        } finally {
            stream.close();
        }
    }

    /**
     * Spark's manager of the files of a checkpoint. Spark's own write a file under another name, copy it and delete it.
     */
    public static final class Checkpoints implements CheckpointFileManager {

        private final FileSystem files;
        private final Path root;

        public Checkpoints(Path path, Configuration conf) throws IOException {
            root = path;
            files = path.getFileSystem(conf);
        }

        public CheckpointFileManager.CancellableFSDataOutputStream createAtomic(Path path, boolean overwriteIfPossible)
            throws IOException {
            if (overwriteIfPossible) {
                return new Replacing(StoreFiles.open(files, path, true));
            }
            return new Creating(files, path, new ByteArrayOutputStream());
        }

        public FSDataInputStream open(Path path) throws IOException {
            byte[] content = (byte[]) LogFiles.WRITTEN.get(path);
            return content == null ? files.open(path) : new FSDataInputStream(new Memory(content));
        }

        public FileStatus[] list(Path path, PathFilter filter) throws IOException {
            return files.listStatus(path, filter);
        }

        public void mkdirs(Path path) throws IOException {
            files.mkdirs(path);
        }

        public boolean exists(Path path) throws IOException {
            if (LogFiles.WRITTEN.containsKey(path)) {
                return true;
            }
            // Of a file one request says it, of a folder a second one, a list.
            return LogFiles.contain(path) ? files.isFile(path) : files.exists(path);
        }

        public void delete(Path path) throws IOException {
            LogFiles.WRITTEN.remove(path);
            files.delete(path, true);
        }

        public boolean isLocal() {
            return false;
        }

        public Path createCheckpointDirectory() throws IOException {
            files.mkdirs(root);
            return files.makeQualified(root);
        }
    }

    /** The files of a query's logs that this JVM has written last: Spark reads them again soon, and nobody changes them. */
    private static final class LogFiles {

        static final int KEPT = 64;
        static final ConcurrentHashMap WRITTEN = new ConcurrentHashMap();
        private static final ConcurrentLinkedQueue ORDER = new ConcurrentLinkedQueue();

        static void add(Path path, byte[] content) {
            WRITTEN.put(path, content);
            ORDER.add(path);
            while (ORDER.size() > KEPT) {
                WRITTEN.remove(ORDER.poll());
            }
        }

        /** Whether a path is that of a file: a batch in a log of a query, or in that of a source. */
        static boolean contain(Path path) {
            Path folder = path.getParent();
            if (folder == null || folder.getParent() == null) {
                return false;
            }
            String name = folder.getName();
            return name.equals("offsets") || name.equals("commits") || folder.getParent().getName().equals("sources");
        }
    }

    /** A file of a checkpoint that takes the place of an older one. */
    private static final class Replacing extends CheckpointFileManager.CancellableFSDataOutputStream {

        private final FSDataOutputStream stream;

        Replacing(FSDataOutputStream stream) {
            super(stream);
            this.stream = stream;
        }

        public void cancel() {
            stream.abort();
        }
    }

    /** A file of a checkpoint that must be new. */
    private static final class Creating extends CheckpointFileManager.CancellableFSDataOutputStream {

        private final FileSystem files;
        private final Path path;
        private final ByteArrayOutputStream content;
        private boolean closed;

        Creating(FileSystem files, Path path, ByteArrayOutputStream content) {
            super(content);
            this.files = files;
            this.path = path;
            this.content = content;
        }

        public void close() throws IOException {
            if (closed) {
                return;
            }
            closed = true;
            StoreFiles.create(files, path, content.toByteArray());
            if (LogFiles.contain(path)) {
                LogFiles.add(path, content.toByteArray());
            }
        }

        public void cancel() {
            closed = true;
        }
    }

    /**
     * Hadoop's file system for S3, for the log of Delta tables: of two drivers that write a commit of the same number one
     * is refused, and commits under the next number. Delta asks for a commit that is there, but another driver may write
     * it after that.
     */
    public static final class DeltaLog extends S3AFileSystem {

        public FSDataOutputStream create(
            Path path, FsPermission permission, boolean overwrite, int buffer, short replication, long block,
            Progressable progress) throws IOException {
            boolean isCommit = path.getParent() != null && path.getParent().getName().equals("_delta_log")
                && path.getName().endsWith(".json");
            if (overwrite || !isCommit) {
                return super.create(path, permission, overwrite, buffer, replication, block, progress);
            }
            return new FSDataOutputStream(new Commit(this, path), null);
        }
    }

    /** A commit of a Delta table, kept until it is complete. */
    private static final class Commit extends ByteArrayOutputStream {

        private final FileSystem files;
        private final Path path;
        private boolean closed;

        Commit(FileSystem files, Path path) {
            this.files = files;
            this.path = path;
        }

        public void close() throws IOException {
            if (!closed) {
                closed = true;
                StoreFiles.create(files, path, toByteArray());
            }
        }
    }

    /** Bytes as Hadoop reads a file. */
    private static final class Memory extends ByteArrayInputStream implements Seekable, PositionedReadable {

        Memory(byte[] content) {
            super(content);
        }

        public void seek(long position) throws IOException {
            if (position < 0 || position > count) {
                throw new EOFException("no position " + position);
            }
            pos = (int) position;
        }

        public long getPos() {
            return pos;
        }

        public boolean seekToNewSource(long position) {
            return false;
        }

        public int read(long position, byte[] target, int offset, int length) {
            int number = (int) Math.min((long) length, count - position);
            if (number <= 0) {
                return length == 0 ? 0 : -1;
            }
            System.arraycopy(buf, (int) position, target, offset, number);
            return number;
        }

        public void readFully(long position, byte[] target, int offset, int length) throws IOException {
            if (read(position, target, offset, length) < length) {
                throw new EOFException("fewer bytes than " + length);
            }
        }

        public void readFully(long position, byte[] target) throws IOException {
            readFully(position, target, 0, target.length);
        }
    }
}
