import android.content.Context
import android.graphics.Bitmap
import java.io.Closeable
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/**
 * Classifies bitmaps with a TF Lite file written by bin/export.
 *
 * [cropFraction] is `crop_fraction` of the file's about.json, or null where `resize` is "stretch".
 */
class ImageClassifier(
    context: Context, model: String, labels: String, private val cropFraction: Double? = 1.0, threads: Int = 2
) : Closeable {

    private val labels = context.assets.open(labels).bufferedReader().readLines()
    private val interpreter = Interpreter(
        context.assets.openFd(model).use { file ->
            FileInputStream(file.fileDescriptor).channel.map(
                FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength
            )
        },
        Interpreter.Options().setNumThreads(threads)
    )
    private val input = interpreter.getInputTensorFromSignature("image", SIGNATURE)
    private val output = interpreter.getOutputTensorFromSignature("probabilities", SIGNATURE)
    private val logits = interpreter.getOutputTensorFromSignature("logits", SIGNATURE)

    /** Returns all classes with their probabilities, the most probable first. */
    fun classify(bitmap: Bitmap): List<Pair<String, Float>> {
        val (_, height, width, channels) = input.shape().toList()
        val image = buffer(input)
        for ((red, green, blue) in resized(bitmap, height, width)) {
            if (channels == 1) {
                put(image, 0.299f * red + 0.587f * green + 0.114f * blue)
            } else {
                for (value in listOf(red, green, blue)) put(image, value)
            }
        }
        image.rewind()
        val result = buffer(output)
        interpreter.runSignature(
            mapOf("image" to image),
            mapOf("probabilities" to result, "logits" to buffer(logits)),
            SIGNATURE
        )
        result.rewind()
        return labels.map { it to probability(result) }.sortedByDescending { it.second }
    }

    /** Resizes the centred window of a bitmap. Returns the pixels row by row, each [red, green, blue]. */
    private fun resized(bitmap: Bitmap, height: Int, width: Int): List<FloatArray> {
        var (rows, columns) = bitmap.height to bitmap.width
        if (cropFraction != null) {
            val scale = cropFraction * min(rows.toDouble() / height, columns.toDouble() / width)
            rows = max((scale * height + 0.5).toInt(), 1)
            columns = max((scale * width + 0.5).toInt(), 1)
        }
        val (top, left) = (bitmap.height - rows) / 2 to (bitmap.width - columns) / 2
        val readable = bitmap.copy(Bitmap.Config.ARGB_8888, false)  // Hardware bitmaps do not expose their pixels.
        val across = weights(columns, width)
        val line = IntArray(columns)
        val narrow = List(rows) { row ->
            readable.getPixels(line, 0, columns, left, top + row, columns, 1)
            val colours = line.map { floatArrayOf((it shr 16 and 0xFF) + 0f, (it shr 8 and 0xFF) + 0f, (it and 0xFF) + 0f) }
            across.map { (first, shares) -> mean(colours, first, shares) }
        }
        val result = mutableListOf<FloatArray>()
        for ((first, shares) in weights(rows, height)) {
            for (x in 0 until width) {
                val column = List(shares.size) { narrow[first + it][x] }
                result += mean(column, 0, shares).map { it.roundToInt() + 0f }.toFloatArray()
            }
        }
        return result
    }

    /** Returns the bilinear weights of `from` pixels in each of `to`: (the first pixel, its share and the next ones'). */
    private fun weights(from: Int, to: Int): List<Pair<Int, List<Float>>> {
        val scale = from.toFloat() / to
        val radius = max(scale, 1f)  // A smaller picture averages over more pixels.
        return List(to) { index ->
            val centre = (index + 0.5f) * scale
            val pixels = max(floor(centre - radius).toInt(), 0) until min(ceil(centre + radius).toInt(), from)
            val shares = pixels.map { max(0f, 1 - abs(it + 0.5f - centre) / radius) }
            pixels.first to shares.map { it / shares.sum() }
        }
    }

    /** Returns the weighted mean of the colours from `first` on. */
    private fun mean(colours: List<FloatArray>, first: Int, shares: List<Float>) =
        FloatArray(3) { k -> shares.indices.sumOf { (shares[it] * colours[first + it][k]).toDouble() }.toFloat() }

    /** Allocates memory for a tensor's values. */
    private fun buffer(tensor: Tensor) =
        ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder())

    /** Writes a pixel in the input's number format: pixel / scale + zero point in an integer file. */
    private fun put(image: ByteBuffer, pixel: Float) {
        val scale = input.quantizationParams().scale
        val number = if (scale == 0f) pixel else pixel / scale + input.quantizationParams().zeroPoint
        when (input.dataType()) {
            DataType.FLOAT32 -> image.putFloat(number)
            DataType.INT8 -> image.put(number.roundToInt().coerceIn(-128, 127).toByte())
            else -> image.put(number.roundToInt().coerceIn(0, 255).toByte())
        }
    }

    /** Reads the next probability: (value - zero point) * scale in an integer file. */
    private fun probability(result: ByteBuffer): Float {
        val (scale, zeroPoint) = output.quantizationParams().let { it.scale to it.zeroPoint }
        return when (output.dataType()) {
            DataType.FLOAT32 -> result.getFloat()
            DataType.INT8 -> (result.get() - zeroPoint) * scale
            else -> ((result.get().toInt() and 0xFF) - zeroPoint) * scale
        }
    }

    override fun close() = interpreter.close()

    private companion object {
        const val SIGNATURE = "serving_default"
    }
}
