# benchmarks/apps/hostile_app.py, for Puma.
CHUNK = ("x" * 65536).freeze
CHUNKS = 1024
class Large
  def each
    CHUNKS.times { yield CHUNK }
  end
end
run lambda { |env|
  input = env["rack.input"]
  nil while input.read(65536)
  large = env["PATH_INFO"] == "/large"
  length = large ? CHUNK.bytesize * CHUNKS : 2
  [200, {"Content-Type" => "text/plain", "Content-Length" => length.to_s}, large ? Large.new : ["ok"]]
}
