import android.content.Context
import android.graphics.Bitmap
import java.io.Closeable
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlin.math.roundToInt
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/** Classifies bitmaps with a TF Lite file written by bin/export. */
class ImageClassifier(context: Context, model: String, labels: String, threads: Int = 2) : Closeable {

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
        val readable = bitmap.copy(Bitmap.Config.ARGB_8888, false)  // Hardware bitmaps do not expose their pixels.
        val scaled = Bitmap.createScaledBitmap(readable, width, height, true)
        val pixels = IntArray(width * height)
        scaled.getPixels(pixels, 0, width, 0, 0, width, height)

        val image = buffer(input)
        for (pixel in pixels) {
            val (red, green, blue) = listOf(pixel shr 16 and 0xFF, pixel shr 8 and 0xFF, pixel and 0xFF)
            if (channels == 1) {
                put(image, (0.299f * red + 0.587f * green + 0.114f * blue))
            } else {
                for (value in listOf(red, green, blue)) put(image, value.toFloat())
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
